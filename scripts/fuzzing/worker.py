"""Damages and reads inputs one after another, as it is told on standard input.

A line ``{"kind", "seed", "number", "sound", "work"}`` is answered by one line with the outcome.
Whoever told it kills it when an answer is late.
"""

import json
import logging
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from pathlib import Path
from random import Random

import torch
from damage import damage
from kinds import KINDS, Kind
from reading import Seen
from structured import STRUCTURED

from medaug.core.errors import MedaugError

LONGEST = 700
"""Characters of a refusal; a longer one is no sentence."""
MOST_BYTES = 6 * 2**30
_BASE: dict[str, Seen] = {}


def copied(sound: Path, place: Path) -> None:
    """The files of ``sound``, anew, at ``place``."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)


def damaged(kind: Kind, place: Path, rng: Random) -> str:
    """Damage one file below ``place``; which, and how."""
    names = sorted({file for pattern in kind.files for file in place.rglob(pattern)})
    file = rng.choice(names)
    raw = file.read_bytes()
    change = STRUCTURED.get(kind.structured)
    suits = file.suffix in (".json", ".csv", ".yaml", ".dcm", ".zip")
    if change is not None and suits and rng.random() < 0.5:
        if file.suffix == ".csv":
            change = STRUCTURED["csv"]
        elif file.suffix == ".dcm":
            change = STRUCTURED["dicom"]
        new, how = change(raw, rng)
    else:
        new, how = damage(raw, rng)
    file.write_bytes(new)
    return f"{file.relative_to(place)}: {how}" + ("" if new != raw else " (nothing changed)")


def outcome(kind: Kind, place: Path, base: Seen) -> tuple[str, str]:
    """What became of the input at ``place``, in one word, and what was said of it."""
    try:
        seen = kind.read(place)
    except MedaugError as error:
        return judged(str(error))
    except MemoryError:
        return "traceback", "MemoryError"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in last if "medaug" in f.filename]
        return "traceback", f"{type(error).__name__}: {str(error)[:300]} at {' '.join(ours[-3:])}"
    if seen.refused:
        return judged("; ".join(seen.refused))
    if seen.facets == base.facets:
        return "alike", ""
    told = seen.said - base.said
    if told:
        return "said", "; ".join(sorted(told))[:300]
    other = sorted(n for n in seen.facets.keys() | base.facets.keys()
                   if seen.facets.get(n) != base.facets.get(n))  # fmt: skip
    if all(name.split("/")[0] in kind.bare for name in other):
        return "undetectable", ", ".join(other)
    return "silent", ", ".join(other)


def checksummed(how: str) -> bool:
    """Whether the damage was done to what a packed file keeps a checksum of."""
    name, _, what = how.partition(": ")
    return name.endswith(".gz") and not what.startswith("inside")


def judged(sentence: str) -> tuple[str, str]:
    """Whether a refusal is one sentence that a user can read."""
    if "unexpected " in sentence:
        return "traceback", sentence[:500]
    if len(sentence) > LONGEST or not sentence.isprintable() or "Traceback" in sentence:
        return "unclear", sentence[:500]
    return "refused", sentence


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not os.environ.get("FUZZ_SHOW"):
        os.dup2(1, 2)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        asked = json.loads(line)
        kind, work = KINDS[asked["kind"]], Path(asked["work"])
        place = work / "input"
        if asked["kind"] not in _BASE:
            copied(Path(asked["sound"]), place)
            _BASE[asked["kind"]] = kind.read(place)
        copied(Path(asked["sound"]), place)
        rng = Random(f"{asked['seed']} {asked['kind']} {asked['number']}")
        how = damaged(kind, place, rng)
        print(json.dumps({"how": how, "ready": True}), file=answers)
        signal.setitimer(signal.ITIMER_PROF, asked["limit_s"])  # its signal ends this process
        word, told = outcome(kind, place, _BASE[asked["kind"]])
        signal.setitimer(signal.ITIMER_PROF, 0)
        if word == "undetectable" and checksummed(how):
            word = "silent"
        print(json.dumps({"outcome": word, "told": told, "how": how}), file=answers)


if __name__ == "__main__":
    main()
