"""Damage and read inputs one after another, as `fuzz.Worker` sends them over a connection.

Each is answered twice: with what was done to it, and with what became of it.  The process is killed
when an answer is late.
"""

import logging
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import torch
from damage import STRUCTURED, damage
from kinds import KINDS, Kind
from reading import Seen

from medaug.core.errors import MedaugError

LONGEST = 700
"""Characters of a refusal; a longer one is no sentence."""
MOST_BYTES = 6 * 2**30
_BASE: dict[str, Seen] = {}


def copied(sound: Path, place: Path) -> None:
    """Copy the files of ``sound`` to ``place``, in the place of what is there."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)


def damaged(kind: Kind, place: Path, rng: Random) -> str:
    """Damage one file below ``place``; which, and how."""
    names = sorted({file for pattern in kind.files for file in place.rglob(pattern)})
    file = rng.choice(names)
    raw = file.read_bytes()
    suffix = file.suffix.removeprefix(".").replace("dcm", "dicom")
    if kind.structured and suffix in STRUCTURED and rng.random() < 0.5:
        own = suffix if suffix in ("csv", "dicom") else kind.structured
        new, how = STRUCTURED[own](raw, rng)
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
    if said := seen.said - base.said:
        return "said", "; ".join(sorted(said))[:300]
    other = sorted(n for n in seen.facets.keys() | base.facets.keys()
                   if seen.facets.get(n) != base.facets.get(n))  # fmt: skip
    if all(name.split("/")[0] in kind.bare for name in other):
        return "undetectable", ", ".join(other)
    return "silent", ", ".join(other)


def judged(sentence: str) -> tuple[str, str]:
    """Whether a refusal is one sentence that a user can read."""
    if "unexpected " in sentence:
        return "traceback", sentence[:500]
    if len(sentence) > LONGEST or not sentence.isprintable() or "Traceback" in sentence:
        return "unclear", sentence[:500]
    return "refused", sentence


def main() -> None:
    """Answer until the connection ends, whose file descriptor is the first argument."""
    answers = Connection(int(sys.argv[1]))
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1) if os.environ.get("FUZZ_SHOW") else (0, 1, 2):
        os.dup2(silence, stream)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            name, seed, number, sound, work, limit_s = answers.recv()
        except EOFError:
            return
        kind, place = KINDS[name], work / "input"
        if name not in _BASE:
            copied(sound, place)
            _BASE[name] = kind.read(place)
        copied(sound, place)
        how = damaged(kind, place, Random(f"{seed} {name} {number}"))
        answers.send((how,))
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # its signal ends this process
        word, about = outcome(kind, place, _BASE[name])
        signal.setitimer(signal.ITIMER_PROF, 0)
        file, _, what = how.partition(": ")
        if word == "undetectable" and file.endswith(".gz") and not what.startswith("inside"):
            word = "silent"  # what is packed keeps a checksum
        answers.send((how, word, about))


if __name__ == "__main__":
    main()
