"""Files of scripts as they see themselves when they run: neighbours are top-level modules."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@contextmanager
def modules_of(folder: str) -> Iterator[Callable[[str], Any]]:
    """Imports a module of ``scripts/folder`` by name; all of them are forgotten afterwards."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS / folder))
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if (SCRIPTS / folder / f"{name}.py").exists():
            del sys.modules[name]
