"""Damage files of every kind that is read, read them, and count what became of them."""

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
sys.path.append(str(HERE.parent / "benchmarks"))  # last: it has a material.py of its own

from keeping import sources  # noqa: E402
from kinds import KINDS  # noqa: E402
from running import Tried, Worker, trials  # noqa: E402

from medaug.runtime.files import write_bytes, write_json  # noqa: E402

WORK = ROOT / "build" / "fuzz"
RESULTS = ROOT / "docs" / "results"
WORDS = ("refused", "alike", "said", "undetectable", "silent", "unclear", "traceback", "crash",
         "hang")  # fmt: skip
BAD = ("silent", "unclear", "traceback", "crash", "hang")


def sound(kind: str) -> Path:
    """The sound files of a kind, made once by this program."""
    place = WORK / sources(HERE) / "sound" / kind
    if not place.exists():
        part = place.with_name(f".{kind}")
        shutil.rmtree(part, ignore_errors=True)
        KINDS[kind].make(part)
        part.rename(place)
    return place


def counted(worker: Worker, kind: str, count: int, seed: int) -> list[Tried]:
    """``count`` damaged inputs of a kind; those that this program read with this seed are kept."""
    kept = WORK / sources(HERE) / f"{kind}-{seed}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    found = (
        [Tried(**json.loads(line)) for line in kept.read_text().splitlines()]
        if kept.exists()
        else []
    )
    with kept.open("a") as lines:
        for tried in trials(worker, kind, seed, range(len(found), count), sound(kind)):
            found.append(tried)
            lines.write(json.dumps(asdict(tried)) + "\n")
            lines.flush()
    return found[:count]


def table(rows: dict[str, Counter[str]]) -> str:
    """The counts for a reader."""
    lines = [
        "| kind | tried | " + " | ".join(WORDS) + " |",
        "| --- |" + " --- |" * (len(WORDS) + 1),
    ]
    rows = rows | {"all": sum(rows.values(), Counter())}
    for kind, row in rows.items():
        cells = [str(row.total()), *(str(row[word]) for word in WORDS)]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


TOLD = """\
# Damaged files

Made by `{command}`: {count} damaged inputs of each kind (bits flipped, blocks lost, doubled or
exchanged, ends cut off, extreme numbers, values of other types), each read by the command that
reads such files, with {limit:g} s of computing to do it in.

- refused: one sentence names the file and what is wrong.
- alike: what was read is what the sound file holds.
- said: something else was read, and the verdicts or notes say so.
- undetectable: other voxels (or the slope that scales them), levels or list entries, which are as
  sound as the right ones; the format keeps no checksum, so nothing can tell.
- Every other column must be 0: read differently without a word, a refusal that is no sentence, a
  traceback, a crash, a hang.

"""


def written(rows: dict[str, Counter[str]], asked: argparse.Namespace) -> None:
    """The results, to docs/results."""
    command = f"scripts/fuzz --count {asked.count} --seed {asked.seed}"
    told = TOLD.format(command=command, count=asked.count, limit=asked.limit)
    counts = {kind: {word: row[word] for word in WORDS} for kind, row in rows.items()}
    about = {"command": command, "limit_s": asked.limit, "counts": counts}
    write_json(RESULTS / "fuzz.json", about)
    write_bytes(RESULTS / "fuzz.md", (told + table(rows)).encode())


def main() -> int:
    """Try what is asked, write the results, and fail where anything was not read or refused."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/fuzz")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all unless told")
    parser.add_argument("--count", type=int, default=500, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds that an input may take")
    parser.add_argument("--show", default=",".join(BAD), help="outcomes that are printed")
    parser.add_argument("--write", action="store_true", help="the results to docs/results")
    asked = parser.parse_args()
    rows: dict[str, Counter[str]] = {}
    bad: list[Tried] = []
    worker = Worker(WORK / "work" / str(os.getpid()), asked.limit)
    for kind in asked.kinds or KINDS:
        found = counted(worker, kind, asked.count, asked.seed)
        rows[kind] = Counter(tried.outcome for tried in found)
        bad += [tried for tried in found if tried.outcome in BAD]
        print(f"{kind}: {dict(rows[kind])}", file=sys.stderr)
        for tried in found:
            if tried.outcome in asked.show.split(","):
                print(f"  {tried.outcome} {tried.number}: {tried.how}: {tried.told}",
                      file=sys.stderr)  # fmt: skip
    worker.stop()
    if asked.write:
        written(rows, asked)
    print(table(rows), end="")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
