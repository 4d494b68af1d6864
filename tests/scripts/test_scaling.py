"""What two processes are held to; the arithmetic of docs/scaling.md, on bytes that models send."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medaug.core.config import resolve

TRACED = """
import json, sys
from pathlib import Path
import torch
import scaling
from medaug.runtime import collectives

torch.set_num_threads(1)
cache, work, wrong = sys.argv[1:]
if wrong:
    mean = collectives.average_gradients

    def summed(steps):
        ranks = collectives.current_ranks()
        times = 1 if ranks is None else ranks.world
        return {player: [times * each for each in taken] for player, taken in mean(steps).items()}

    collectives.average_gradients = summed
scaling.GAMES["small"] = {"name": "vae", "width": 4, "latent_dim": 4}
told = scaling.trace(Path(cache), "small", Path(work), 2)
claims = scaling.claims({"small": told})
print(json.dumps([told, [[claim.value, claim.reached] for claim in claims]]))
"""
TEXT = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


def test_the_table_of_the_page_counts_every_message(row: Any) -> None:
    """Beside the gradients: a running mean; a gate of two; codes there and back, and noise."""
    scaling = row("scaling")
    found = scaling.sent(["vae", "spatial_vaegan", "vaegan", "wae_mmd"])
    for line in scaling.table(found):
        assert line in TEXT
    vae, gated, coded = (found[f"{n} modern"] for n in ("vae", "spatial_vaegan", "wae_mmd"))
    assert [told["messages"] for told in (vae, gated, coded)] == [2, 3, 4]
    assert vae["bytes"] == vae["gradients"] + 4
    assert vae["row_bytes"] == gated["row_bytes"] == 0
    assert coded["bytes"] == coded["gradients"]
    latent = resolve({"model": {"name": "wae_mmd"}}).model.arguments["latent_dim"]
    assert coded["row_bytes"] == 3 * 4 * latent


@pytest.mark.parametrize("preset", ["modern", "author"])
def test_the_ranges_of_the_page_are_those_of_its_table(preset: str) -> None:
    lines = [line.split("|")[1:-1] for line in TEXT.splitlines() if f" {preset} |" in line]
    assert len(lines) == 13
    for column, places in ((-2, "at 8 GPUs and" if preset == "modern" else "and"), (-1, "")):
        kept = sorted(round(100 * 20 / (20 + float(line[column]))) for line in lines)
        assert f"{kept[0]} to {kept[-1]} % {places}".strip() in " ".join(TEXT.split())


def test_an_estimate_is_the_formula_of_the_page(row: Any) -> None:
    told = {"one": {"weights": 1, "bytes": 40_000_000, "row_bytes": 1000, "messages": 10}}
    found = row("scaling").estimates(told, step_s=0.02)["one"]
    near, far = 40e6 + 64e3 * 8, 40e6 + 64e3 * 64
    assert found["lost_ms_8"] == pytest.approx(2 * near * 7 / 8 / 300e9 * 1e3 + 0.2 + 0.1)
    assert found["lost_ms_64"] == pytest.approx(2 * far * 63 / 64 / 40e9 * 1e3 + 0.6 + 0.5)
    assert found["efficiency_8"] == pytest.approx(20 / (20 + found["lost_ms_8"]))


@pytest.mark.long
@pytest.mark.parametrize("wrong", ["", "summed"])
def test_two_processes_are_held_to_the_first_round_of_one(
    phantom_cache: Path, tmp_path: Path, wrong: str
) -> None:
    root = Path(__file__).parents[2]
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
