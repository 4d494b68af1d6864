"""Where and how precisely to compute."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from medaug.runtime.device import choose_precision


@pytest.mark.parametrize(("native", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_chosen_where_the_device_asked_about_has_it(
    native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[Any] = []

    @contextmanager
    def made_current(device: torch.device) -> Any:
        current.append(device)
        yield
        current.pop()

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or (native and current == [torch.device("cuda", 1)])

    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_precision("auto", torch.device("cuda", 1)) == precision
    assert choose_precision("float32", torch.device("cuda", 1)) == "float32"
