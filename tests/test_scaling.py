"""What two processes are held to; the arithmetic of docs/scaling.md, on bytes that models send."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TRACED = """
import json, sys
from pathlib import Path
import torch
import ranks
from medaug import across

torch.set_num_threads(1)
cache, work, wrong = sys.argv[1:]
if wrong:
    mean = across.averaged

    def summed(steps):
        ranks = across.together()
        times = 1 if ranks is None else ranks.world
        return {player: [times * each for each in taken] for player, taken in mean(steps).items()}

    across.averaged = summed
ranks.GAMES["small"] = {"name": "vae", "width": 4, "latent_dim": 4}
told = ranks.trace(Path(cache), "small", Path(work), 2)
print(json.dumps([told, [[claim.value, claim.reached] for claim in ranks.claims({"small": told})]]))
"""
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


@pytest.mark.parametrize("wrong", ["", "summed"])
def test_two_processes_are_held_to_the_first_round_of_one(
    phantom_cache: Path, tmp_path: Path, wrong: str
) -> None:
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root / "scripts" / "benchmarks"), str(root)])
    done = subprocess.run(
        [sys.executable, "-c", TRACED, str(phantom_cache), str(tmp_path), wrong],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told, claims = json.loads(done.stdout.splitlines()[-1])
    assert told["rounds"] == 2
    assert told["same_terms"]
    assert claims[0] == [1, True]
    assert claims[1] == [told["apart_first"], not wrong]
    assert (told["apart_first"] > 0.5) == bool(wrong)
