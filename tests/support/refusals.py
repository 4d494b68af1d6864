"""What is refused says exactly why."""

import re
from pathlib import Path
from typing import Any

import pytest

from medaug.core.errors import ConfigError, DataError, MedaugError
from medaug.synthesis.synthesize import synthesize


def refused(message: str, kind: type[MedaugError] = DataError):
    """Expect an error of ``kind`` with exactly this message."""
    return refused_like(re.escape(message), kind)


def refused_like(pattern: str, kind: type[MedaugError] = DataError):
    """Expect an error of ``kind`` with a message that the regular expression describes whole."""
    return pytest.raises(kind, match=f"^{pattern}$")


def stack_refused(out: Path, generator: Any, **options: Any) -> str:
    """Why ``synthesize`` draws no samples with these options; ``out`` is not made."""
    with pytest.raises(ConfigError) as error:
        synthesize(generator, 2, out, **{"uncertainty": 0, **options})
    assert not out.exists()
    return str(error.value)
