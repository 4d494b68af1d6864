"""Damage to what is read again: one bit flipped, or a value that is no number.

*flip*: what reads a cache, checkpoint, weight file, manifest, ... must refuse it in one sentence,
or come to the bytes of an undisturbed run; and the command that makes the file must make it good
again, or refuse.  Times and pictures that nothing reads again (``metrics.jsonl``, PNG) are left
out.  *nan*: NaN in scans, weights, checkpoints and gradients is named, and nothing continues with
it.
"""

import itertools
import shutil
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from process import Command, End, run, stopped
from victims import PATIENTS, SHAPE, SPACING_MM, Trial, Victim, World, difference

from medaug.data.sources.phantom.source import Organ, draw_organs
from medaug.training.checkpoint import read_tensors, write_tensors

FLIP_SEED, NAN_SEED = 21, 25
REFUSED = 2
UNREAD = ("metrics.jsonl", ".png", ".lock", ".part")
FOR_LATER = ("parts/drawn-", "features/")
"""What ``evaluate`` keeps for parts that are not measured yet."""


GROUPS = {
    "prepare": "cache under way",
    "train": "run under way",
    "synthesize": "samples and manifest under way",
    "evaluate": "report under way",
    "download": "download under way",
}
"""What each command leaves when it is killed."""
APART = {"prepare": (), "train": ("run.json",), "synthesize": ()}
"""Files that tell of the folders a command was given, and so differ between two."""


def flip(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """``count`` bits in each kind of file."""
    for draws in _draws(count, 0):
        home = scratch / "flipped-cache"
        shutil.copytree(world.cache.parent, home)
        what = _one_bit(sorted(home.rglob("*.*")), draws)
        yield _reader_and_maker(world, "cache", what, home, world.cache, ("train", "prepare"))
    for draws in _draws(count, 1):
        home = scratch / "flipped-run"
        shutil.copytree(world.run.parent, home)
        what = _one_bit([home / "out" / "model.safetensors"], draws)
        names = ("synthesize", "train")
        yield _reader_and_maker(world, "weight file", what, home, world.run, names)
    for name in GROUPS:
        yield from _under_way(world, name, scratch, count)


def _reader_and_maker(
    world: World, group: str, what: str, home: Path, sound: Path, names: tuple[str, str]
) -> Trial:
    """The command that reads a finished ``sound``, given the flipped copy in ``home``; then its
    maker.
    """
    (reader, wanted, _), (maker, whole, _) = map(world.undisturbed, names)
    words = [str(home / "out") if w == str(sound) else w for w in reader.words]
    folder = home.parent / names[0]
    end = run(Command(words), folder)
    lost = _judged(end, reader, wanted, folder, APART[names[0]])
    mended = run(maker.command(), home)
    found = _judged(mended, maker, whole, home, APART[names[1]])
    shutil.rmtree(folder)
    shutil.rmtree(home)
    return Trial(group, what, lost or found, [end, mended], "refused" if end.code else "harmless")


def _under_way(world: World, name: str, scratch: Path, count: int) -> Iterator[Trial]:
    """What a killed command left: the same command again."""
    victim, wanted, duration = world.undisturbed(name)
    for draws in _draws(count, 2):
        folder = scratch / f"flipped-{name}"
        files: Sequence[Path] = ()
        while not files:  # a download may have arrived, and nothing is on its way
            shutil.rmtree(folder, ignore_errors=True)
            moment = draws.uniform(0.2, 1) * duration
            stopped(victim.command(), folder, moment, signal.SIGKILL)
            files = [p for p in _read_again(folder) if name != "download" or ".download" in p.parts]
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


def _read_again(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size and not path.name.endswith(UNREAD)
    ]


def _draws(count: int, kind: int) -> Iterator[np.random.Generator]:
    for number in range(count):
        yield np.random.default_rng([FLIP_SEED, kind, number])


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


def nan(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """``count`` of each kind."""
    for number in range(count):
        draws = np.random.default_rng([NAN_SEED, number])
        yield _scan(world, scratch, draws)
        yield _weights(world, scratch, draws)
        yield _checkpoint(world, scratch, draws)
        yield _gradient(world, scratch, draws)


def _scan(world: World, scratch: Path, draws: np.random.Generator) -> Trial:
    """A few voxels of one scan in a folder of NIfTI files: NaN is named, infinity refused."""
    folder = scratch / "nan-scans"
    for name in ("images", "labels"):
        (folder / "scans" / name).mkdir(parents=True)
    bad, value = f"scan_{draws.integers(PATIENTS)}", float(draws.choice([np.nan, np.inf, -np.inf]))
    for number in range(PATIENTS):
        hu, organs, affine = draw_organs(number, SHAPE, SPACING_MM)
        name, hu = f"scan_{number}", hu.astype(np.float32)
        if name == bad:
            hu.flat[draws.integers(hu.size, size=5)] = value
        marks = (organs == Organ.PANCREAS).astype(np.uint8)
        for kind, array in (("images", hu), ("labels", marks)):
            path = folder / "scans" / kind / f"{name}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array, affine), path)
    words = ["prepare", str(folder / "scans"), "--cache", "out", "--size", "32", "--workers", "0"]
    end = run(Command(words), folder)
    named = any(bad in line and "finite" in line for line in end.said.splitlines())
    lost = "" if named else f"{bad} has {value}, and nothing says so: {end.said[-500:]}"
    if np.isinf(value) and end.code != 1:
        lost = lost or f"an infinite value, and it ended with {end.code}"
    shutil.rmtree(folder)
    return Trial("scan", f"{value} in {bad}", lost, [end], "refused" if end.code else "told")


def _weights(world: World, scratch: Path, draws: np.random.Generator) -> Trial:
    """One value of a weight file whose checksum is right."""
    folder = scratch / "nan-weights"
    folder.mkdir(parents=True)
    name = _spoil(world.run / "model.safetensors", folder / "bad.safetensors", draws)
    victim, _, _ = world.undisturbed("synthesize")
    words = [str(folder / "bad.safetensors") if w == str(world.run) else w for w in victim.words]
    end = run(Command(words), folder)
    lost = "" if end.code == 2 and "finite" in end.sentence else f"ended with {end.code}"
    lost = lost or ("" if name in end.sentence else f"does not name {name}")
    lost = lost or ("it wrote samples" if (folder / "out" / "manifest.csv").exists() else "")
    shutil.rmtree(folder)
    return Trial("weights", f"NaN in {name}", lost, [end], "refused")


def _checkpoint(world: World, scratch: Path, draws: np.random.Generator) -> Trial:
    """The newest state of a run that was killed: the one before it is taken up."""
    victim, wanted, duration = world.undisturbed("train")
    folder, states = scratch / "nan-state", []
    ends = []
    while not states:
        shutil.rmtree(folder, ignore_errors=True)
        moment = draws.uniform(0.4, 1) * duration
        ends = [stopped(victim.command(), folder, moment, signal.SIGKILL)]
        states = sorted(folder.glob("out/checkpoints/state-*.safetensors"))
    name = _spoil(states[-1], states[-1], draws)
    ends.append(run(victim.command(), folder))
    lost = ""
    if ends[-1].code and not (ends[-1].code == 2 and len(states) == 1):
        lost = f"ended with {ends[-1].code}"
    if not ends[-1].code:
        lost = difference(wanted, victim.contents(folder))
    lost = lost or ("" if "finite" in ends[-1].said else "nobody says so")
    shutil.rmtree(folder)
    note = "refused" if ends[-1].code else "recovered"
    return Trial("checkpoint", f"NaN in {name}, {len(states)} states", lost, ends, note)


def _gradient(world: World, scratch: Path, draws: np.random.Generator) -> Trial:
    """A run whose gradients stop being numbers: it waits for a cure."""
    folder, at = scratch / "nan-gradient", int(draws.integers(1, 20))
    words = world.victim("train").words
    bad = run(Command(words, before=partial(_spoil_gradients, at)), folder)
    lost = "" if bad.code == 2 and "finite number" in bad.sentence else f"ended with {bad.code}"
    cured, lost = world.again("train", folder, lost)
    shutil.rmtree(folder)
    return Trial("gradient", f"NaN from turn {at}", lost, [bad, cured], "refused, then cured")


def _spoil_gradients(at: int) -> None:
    """Have the gradients of this process be NaN from the ``at``-th that are taken on."""
    true, taken = torch.autograd.grad, itertools.count(1)

    def grad(*given: Any, **how: Any) -> tuple[torch.Tensor | None, ...]:
        bad = next(taken) >= at
        found = true(*given, **how)
        return tuple(g * float("nan") if bad and g is not None else g for g in found)

    torch.autograd.grad = grad


def _spoil(source: Path, target: Path, draws: np.random.Generator) -> str:
    """Write a weight file again with one value that is no number; the name of its tensor."""
    tensors, header, _ = read_tensors(source)
    names = sorted(k for k, v in tensors.items() if v.is_floating_point() and v.numel())
    name = names[int(draws.integers(len(names)))]
    flat = tensors[name].reshape(-1)
    flat[int(draws.integers(flat.numel()))] = float("nan")
    write_tensors(target, {**tensors, name: flat.reshape(tensors[name].shape)}, header)
    return name
