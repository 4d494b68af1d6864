"""Damage files of every kind that is read, read them, and count what became of them."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
sys.path.append(str(HERE.parent / "benchmarks"))  # last: it has a material.py of its own

from kinds import KINDS  # noqa: E402
from results import markdown, sources  # noqa: E402

from medaug.runtime.files import write_bytes, write_json  # noqa: E402

WORK = ROOT / "build" / "fuzz"
RESULTS = ROOT / "docs" / "results"
BAD = ("silent", "unclear", "traceback", "crash", "hang")
WORDS = ("refused", "alike", "said", "undetectable", *BAD)
FIRST_S = 900.0
"""For imports and the reading of what is sound, on a busy machine."""
_WAITING = 20  # times the limit, for a process that waits or is kept from computing


@dataclass(frozen=True)
class Tried:
    """One damaged input: its kind and number, what was done to it, and what became of it."""

    kind: str
    number: int
    how: str
    outcome: str
    told: str


class Worker:
    """A process that damages and reads; started when needed, and again after a hang or a crash.

    Args:
        work: a folder for its inputs.
        limit_s: seconds of computing that one input may take.
    """

    def __init__(self, work: Path, limit_s: float) -> None:
        self.work, self.limit_s = work, limit_s
        self.running: tuple[subprocess.Popen[bytes], Connection] | None = None

    def close(self) -> None:
        """End the process."""
        if self.running is not None:
            process, answers = self.running
            process.kill()
            process.wait()
            answers.close()
        self.running = None

    def _started(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self.running is None:
            path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
            more = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
            environment = {**os.environ, **more, "TMPDIR": str(self.work)}
            self.work.mkdir(parents=True, exist_ok=True)
            answers, theirs = Pipe()
            number = theirs.fileno()
            command = [sys.executable, HERE / "worker.py", str(number)]
            process = subprocess.Popen(command, env=environment, pass_fds=[number])
            theirs.close()
            self.running = process, answers
        return self.running

    def tried(self, kind: str, seed: int, number: int, sound: Path) -> Tried:
        """Damage and read one input."""
        process, answers = self._started()
        answers.send((kind, seed, number, sound, self.work, self.limit_s))
        how = "?"
        for patience in (FIRST_S, _WAITING * self.limit_s):
            try:
                answer = answers.recv() if answers.poll(patience) else None
            except (EOFError, ConnectionResetError):
                process.wait()
                answer = None
            if answer is None:
                ended = process.poll()
                word = "hang" if ended in (None, -signal.SIGPROF) else "crash"
                code = "" if word == "hang" else f"exit status {ended}"
                if how == "?":
                    raise RuntimeError(f"{kind}: what is sound cannot be read ({word} {code})")
                self.close()
                return Tried(kind, number, how, word, code)
            how, *found = answer
        return Tried(kind, number, how, *found)


def trials(worker: Worker, kind: str, seed: int, numbers: range, sound: Path) -> Iterator[Tried]:
    """What became of the inputs of one kind."""
    for number in numbers:
        yield worker.tried(kind, seed, number, sound)


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
    with kept.open("a+") as lines:
        lines.seek(0)
        found = [Tried(**json.loads(line)) for line in lines]
        for tried in trials(worker, kind, seed, range(len(found), count), sound(kind)):
            found.append(tried)
            lines.write(json.dumps(asdict(tried)) + "\n")
            lines.flush()
    return found[:count]


def table(rows: dict[str, Counter[str]]) -> str:
    """The counts for a reader."""
    rows = rows | {"all": sum(rows.values(), Counter())}
    cells = [[kind, row.total(), *(row[word] for word in WORDS)] for kind, row in rows.items()]
    return "\n".join(markdown(["kind", "tried", *WORDS], cells)) + "\n"


ABOUT = """\
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


def main() -> int:
    """Try the chosen kinds, write the results, and fail where one was not read or refused."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/fuzz")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; default all")
    parser.add_argument("--count", type=int, default=500, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0, help="random seed; default 0")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds that an input may take")
    parser.add_argument("--show", default=",".join(BAD), help="outcomes that are printed")
    parser.add_argument("--write", action="store_true", help="the results to docs/results")
    options = parser.parse_args()
    rows: dict[str, Counter[str]] = {}
    with closing(Worker(WORK / "work" / str(os.getpid()), options.limit)) as worker:
        for kind in options.kinds or KINDS:
            found = counted(worker, kind, options.count, options.seed)
            rows[kind] = Counter(one.outcome for one in found)
            print(f"{kind}: {dict(rows[kind])}", file=sys.stderr)
            for one in found:
                if one.outcome in options.show.split(","):
                    line = f"  {one.outcome} {one.number}: {one.how}: {one.told}"
                    print(line, file=sys.stderr)
    if options.write:
        command = f"scripts/fuzz --count {options.count} --seed {options.seed}"
        counts = {kind: {word: row[word] for word in WORDS} for kind, row in rows.items()}
        content = {"command": command, "limit_s": options.limit, "counts": counts}
        write_json(RESULTS / "fuzz.json", content)
        about = ABOUT.format(command=command, count=options.count, limit=options.limit)
        write_bytes(RESULTS / "fuzz.md", (about + table(rows)).encode())
    print(table(rows), end="")
    return 1 if any(row[word] for row in rows.values() for word in BAD) else 0


if __name__ == "__main__":
    sys.exit(main())
