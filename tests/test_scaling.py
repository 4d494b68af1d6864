"""The arithmetic of docs/scaling.md is that of its script, on bytes that models send."""

from pathlib import Path
from typing import Any

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()


def test_the_table_of_the_page_is_what_the_script_prints(row: Any) -> None:
    scaling = row("scaling")
    for line in scaling.table(scaling.sent(["vae", "wgan"])):
        assert line in TEXT


def test_an_estimate_is_the_formula_of_the_page(row: Any) -> None:
    told = {"one": {"weights": 1, "gradients": 40, "bytes": 40_000_000, "messages": 10}}
    found = row("scaling").estimates(told, step_s=0.02)["one"]
    assert found["lost_ms_8"] == pytest.approx(2 * 40e6 * 7 / 8 / 300e9 * 1e3 + 0.2 + 0.1)
    assert found["lost_ms_64"] == pytest.approx(2 * 40e6 * 63 / 64 / 40e9 * 1e3 + 0.6 + 0.5)
    assert found["efficiency_8"] == pytest.approx(20 / (20 + found["lost_ms_8"]))
