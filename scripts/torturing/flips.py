"""One bit flipped in a file that is read again: cache, checkpoint, weight file, manifest, ...

What reads it must refuse in one sentence, or come to the bytes of an undisturbed run; and the
command that makes the file must make it good again, or refuse.  Times and pictures that nobody
reads again (``metrics.jsonl``, PNG) are left out.
"""

import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from process import Command, End, run, stopped
from trial import Trial, difference
from victims import Victim, World

SEED = 21
REFUSED = 2
UNREAD = ("metrics.jsonl", ".png", ".lock", ".part")
FOR_LATER = ("parts/drawn-", "features/")
"""What ``evaluate`` keeps for parts that are not measured yet."""


APART = {"prepare": (), "train": ("run.json",), "synthesize": ()}
"""Files that tell of the folders a command was given, and so differ between two."""


def flip(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """``count`` bits in each kind of file."""
    yield from _cache(world, scratch, count)
    yield from _weights(world, scratch, count)
    for name in ("prepare", "train", "synthesize", "evaluate", "download"):
        yield from _under_way(world, name, scratch, count)


def _cache(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """A finished cache: training from it, then preparing it again."""
    for draws in _draws(count, 0):
        home = scratch / "flipped-cache"
        shutil.copytree(world.cache.parent, home)
        what = _one_bit(sorted(home.rglob("*.*")), draws)
        yield _reader_and_maker(world, "cache", what, home, world.cache, ("train", "prepare"))
        shutil.rmtree(home)


def _weights(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """The weight file of a finished run: drawing from it, then training it again."""
    for draws in _draws(count, 1):
        home = scratch / "flipped-run"
        shutil.copytree(world.run.parent, home)
        what = _one_bit([home / "out" / "model.safetensors"], draws)
        yield _reader_and_maker(
            world, "weight file", what, home, world.run, ("synthesize", "train")
        )
        shutil.rmtree(home)


def _reader_and_maker(
    world: World, group: str, what: str, home: Path, sound: Path, names: tuple[str, str]
) -> Trial:
    """The command that reads ``sound``, given the flipped copy in ``home``; then its maker."""
    (reader, wanted, _), (maker, whole, _) = map(world.undisturbed, names)
    words = [str(home / "out") if w == str(sound) else w for w in reader.words]
    folder = home.parent / names[0]
    end = run(Command(words), folder)
    lost = _judged(end, reader, wanted, folder, APART[names[0]])
    mended = run(maker.command(), home)
    found = _judged(mended, maker, whole, home, APART[names[1]])
    shutil.rmtree(folder)
    return Trial(group, what, lost or found, [end, mended], "refused" if end.code else "harmless")


GROUPS = {
    "prepare": "cache under way",
    "train": "run under way",
    "synthesize": "samples and manifest under way",
    "evaluate": "report under way",
    "download": "download under way",
}


def _under_way(world: World, name: str, scratch: Path, count: int) -> Iterator[Trial]:
    """What a killed command left: the same command again."""
    victim, wanted, duration = world.undisturbed(name)
    for draws in _draws(count, 2):
        folder = scratch / f"flipped-{name}"
        files: Sequence[Path] = ()
        while not files:
            shutil.rmtree(folder, ignore_errors=True)
            moment = draws.uniform(0.2, 1) * duration
            first = stopped(victim.command(), folder, moment, signal.SIGKILL)
            files = [path for path in _read_again(folder) if name != "download" or _coming(path)]
            if not first.code and name == "download":
                continue  # all has arrived, and nothing is on its way
        what = _one_bit(files, draws)
        ends = [run(victim.command(), folder)]
        if not ends[0].code and _uncovered(folder / "out", what):
            ends.append(run(victim.command(), folder))
        lost = _judged(ends[-1], victim, wanted, folder)
        note = "refused" if ends[-1].code else "recovered or harmless"
        yield Trial(GROUPS[name], what, lost, ends, note)
        shutil.rmtree(folder)


def _uncovered(out: Path, what: str) -> bool:
    """Whether there was something to take away, so that the same command reads the flipped file.

    Nobody reads what a report needed for a part once that is measured, nor a checkpoint once there
    is a newer one.
    """
    covering: list[Path] = []
    if what.startswith(FOR_LATER):
        covering = list((out / "parts").glob("*.json"))
    elif what.startswith("checkpoints/"):
        flipped = out / what.partition(":")[0]
        states = flipped.parent.glob("*.safetensors") if flipped.exists() else ()
        covering = [path for path in states if path.name > flipped.name]
    for path in covering:
        path.unlink()
    return bool(covering)


def _coming(path: Path) -> bool:
    return ".download" in path.parts


def _read_again(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size and not path.name.endswith(UNREAD)
    ]


def _draws(count: int, kind: int) -> Iterator[np.random.Generator]:
    for number in range(count):
        yield np.random.default_rng([SEED, kind, number])


def _one_bit(files: Sequence[Path], draws: np.random.Generator) -> str:
    """Flip one bit of one file, each file as likely as another; where."""
    files = [path for path in files if path.is_file() and path.stat().st_size]
    path = files[int(draws.integers(len(files)))]
    content = bytearray(path.read_bytes())
    size = len(content)
    at = int(draws.integers(min(size, 4096) if draws.random() < 0.5 else size))
    bit = int(draws.integers(8))
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"{path.parent.name}/{path.name}: bit {bit} of byte {at} of {size}"


def _judged(
    end: End, victim: Victim, wanted: dict[str, str], folder: Path, apart: Sequence[str] = ()
) -> str:
    """What is wrong with a command's answer to damage; empty where it refused or was right."""
    if end.code == REFUSED:
        return "" if end.sentence else "refused without one sentence"
    if end.code:
        return f"ended with {end.code}"
    found = victim.contents(folder)
    kept = (
        {name: digest for name, digest in side.items() if not name.endswith(tuple(apart) or "\0")}
        for side in (wanted, found)
    )
    return difference(*kept)
