"""Two gloo processes against one on the same batches, and what scaling out is computed from.

1. *Trace*: 200 rounds of ``fit`` on phantom slices, by one process and by two that share each
   batch.  After every round both of two hash all that the next round depends on.  In the first
   round, from the same weights, every term and gradient of two must be that of one; later, games
   with an adversary magnify what rounding did.  How far that goes is measured beside it: one
   process whose first weights differ by one part in 10^7.
2. *Bytes*: what every model's processes send each other in a round, from its own turns.
3. *Estimate*: efficiency at 8 and 64 GPUs by ``scaling.py``, from those bytes.
"""

import os
import shutil
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import torch
from launching import launch
from material import PATIENTS, SEED, phantom_cache
from results import Claim, asked, report
from scaling import estimates, sent

import medaug.training.loop
from medaug.core.config import resolve
from medaug.data.cache.prepare import SliceCache
from medaug.training.checkpoint import pack

BATCH = 16
ROUNDS = 200
GAMES: dict[str, dict[str, Any]] = {
    "vae modern": {"name": "vae", "width": 16},
    "vaegan author": {"name": "vaegan", "width": 16},
    "spatial_vaegan modern": {"width": 16},
    "wgan_gp modern": {"name": "wgan_gp", "width": 16},
}
NUDGE = 1e-7
ALIKE = 1e-4
"""How far two may be from one in the first round: of seven digits, small sums take some."""


def played(
    cache: Path, model: dict[str, Any], run: Path, rounds: int, nudge: float, out: Path
) -> int:
    """Train for ``rounds``; the terms, hashes and seconds of each go to a file."""
    found: dict[str, list[Any]] = {"terms": [], "same": [], "seconds": []}
    round_of = medaug.training.loop._Trainer.round

    def noted(self: Any) -> int:
        if not self.images and nudge:
            for parameter in self.model.parameters():
                parameter.data *= 1 + nudge
        started = time.perf_counter()
        seen = round_of(self)
        found["seconds"].append(time.perf_counter() - started)
        found["terms"].append(self.game.account.close())
        mine = int(sha256(pack(self.game.tensors())).hexdigest()[:15], 16)
        found["same"].append(self.ranks.agreed(mine) == -self.ranks.agreed(-mine))
        if len(found["same"]) == rounds:
            self.images = self.config.train.images
        return seen

    medaug.training.loop._Trainer.round = noted  # type: ignore[method-assign]
    medaug.training.loop._Trainer.snapshot = lambda self, planned=True: None  # type: ignore[method-assign]
    medaug.training.loop._Trainer.tell = lambda self, speed: None  # type: ignore[method-assign]
    opened = SliceCache.open(cache)
    wishes = {
        "data": {"name": "phantom", "size": opened.settings.size},
        "model": model,
        "train": {"images": BATCH * rounds * 8, "batch": BATCH, "precision": "float32"},
    }
    medaug.training.loop.fit(resolve(wishes), opened, run, device="cpu")
    torch.save(found, out.with_suffix(f".{os.environ['RANK']}"))
    return 0


def deviation(one: list[dict[str, float]], other: list[dict[str, float]]) -> list[float]:
    """The largest relative difference of any term, round by round."""
    return [
        max(abs(mine[key] - theirs[key]) / (abs(mine[key]) + 1e-2) for key in mine)
        for mine, theirs in zip(one, other, strict=True)
    ]


def trace(cache: Path, name: str, work: Path, rounds: int) -> dict[str, Any]:
    """One game alone, by two, and alone from nudged weights."""
    found = {}
    for how, world, nudge in (("one", 1, 0.0), ("two", 2, 0.0), ("nudged", 1, NUDGE)):
        run, out = work / f"ranks-{how}", work / f"ranks-{how}.found"
        shutil.rmtree(run, ignore_errors=True)
        if any(launch(partial(played, cache, GAMES[name], run, rounds, nudge, out), world)):
            raise RuntimeError("a process of the benchmark failed; see above")
        found[how] = [torch.load(out.with_suffix(f".{rank}")) for rank in range(world)]
    one, two, nudged = found["one"][0], found["two"][0], found["nudged"][0]
    apart, rounding = (deviation(one["terms"], each["terms"]) for each in (two, nudged))
    return {
        "rounds": rounds,
        "same_bits": sum(two["same"]) / rounds,
        "same_terms": two["terms"] == found["two"][1]["terms"],
        "apart_first": apart[0],
        "apart_first_20": max(apart[:20]),
        "apart_median": median(apart),
        "apart_max": max(apart),
        "rounding_median": median(rounding),
        "rounding_max": max(rounding),
        "seconds_one": median(one["seconds"]),
        "seconds_two": median(two["seconds"]),
    }


def claims(figures: dict[str, dict[str, Any]]) -> list[Claim]:
    """Each game against its bounds."""
    found = []
    for name, told in figures.items():
        same = told["same_bits"] if told["same_terms"] else 0.0
        found.append(Claim(f"rounds after which two hold the same bits, {name}", same, ">=", 1))
        what = f"two apart from one in the first round, terms and gradients, {name}"
        found.append(Claim(what, told["apart_first"], "<=", ALIKE))
    return found


def main() -> int:
    """Measure and report."""
    how = asked()
    torch.set_num_threads(1)
    cache = phantom_cache(how.work).path
    rounds = 20 if how.quick else ROUNDS
    bytes_sent = sent(["vaegan", "vae"] if how.quick else None)
    traces = {name: trace(cache, name, how.work, rounds) for name in GAMES}
    figures = {"trace": traces, "bytes_a_round": bytes_sent, "estimate": estimates(bytes_sent)}
    note = (
        f"64 pixels, batch {BATCH}, {PATIENTS} phantom patients, {rounds} rounds, one thread a "
        f"process; rounding is a run whose first weights are {NUDGE:g} larger. Nothing was "
        "measured on a GPU: the estimate takes the constants in docs/scaling.md."
    )
    return report(how, "ranks", claims(traces), figures, n=rounds, seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
