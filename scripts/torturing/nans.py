"""NaN in scans, weights, checkpoints and gradients: named, and nothing goes on with it."""

import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from process import Command, run, stopped
from trial import Trial, difference
from victims import World

SEED = 25
PLUGIN = '''\
"""A linear autoencoder whose gradient is NaN from the turn on that NAN_AT names."""

import os

import torch
from torch import nn

from medaug.models.losses import half_squared_error
from medaug.models.base import Model, Move, OptimizerSettings, Turn


class Spoilt(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("nan")


class Linear(Model):
    def __init__(self, shape, latent_dim=8):
        super().__init__()
        self.size, self.noise_shape = (shape.channels, shape.size, shape.size), (latent_dim,)
        pixels = shape.channels * shape.size**2
        self.encoder, self.decoder = nn.Linear(pixels, latent_dim), nn.Linear(latent_dim, pixels)
        self.played = 0

    def players(self):
        return {"both": (self.encoder, self.decoder)}

    def turns(self, progress):
        return [Turn(self.play)]

    def optim(self, progress):
        return {"both": OptimizerSettings(1e-3)}

    def play(self, batch):
        self.played += 1
        code = self.encoder(batch.x.flatten(1))
        if self.played >= int(os.environ.get("NAN_AT", 10**9)):
            code = Spoilt.apply(code)
        x_hat = self.decode(code, batch.cond)
        return {"both": Move({"distance": (1.0, half_squared_error(x_hat, batch.x))})}

    def prior(self, noise, cond):
        return noise

    def decode(self, z, cond):
        return torch.tanh(self.decoder(z)).unflatten(1, self.size)
'''


def nan(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """``count`` of each kind."""
    for number in range(count):
        draws = np.random.default_rng([SEED, number])
        yield _scan(world, scratch, draws)
        yield _weights(world, scratch, draws)
        yield _checkpoint(world, scratch, draws)
        yield _gradient(world, scratch, draws)


def _scan(world: World, scratch: Path, draws: np.random.Generator) -> Trial:
    """A few voxels of one scan in a folder of NIfTI files: NaN is told, infinity refused."""
    folder = scratch / "nan-scans"
    images, labels = folder / "scans" / "images", folder / "scans" / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    patients = sorted((world.scans / "Pancreas-CT").iterdir())
    bad = patients[int(draws.integers(len(patients)))].name
    value = float(draws.choice([np.nan, np.inf, -np.inf]))
    for patient in patients:
        series = str(next(patient.rglob("*.dcm")).parent)
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(series))
        image = sitk.Cast(image, sitk.sitkFloat32)
        if patient.name == bad:
            for _ in range(5):
                image[[int(draws.integers(n)) for n in image.GetSize()]] = value
        name = f"{patient.name}.nii.gz"
        sitk.WriteImage(image, str(images / name))
        marks = f"label{patient.name[-4:]}.nii.gz"
        shutil.copy(world.scans / "TCIA_pancreas_labels-02-05-2017" / marks, labels / name)
    words = ["prepare", str(folder / "scans"), "--cache", "out", "--size", "32", "--workers", "0"]
    end = run(Command(words), folder)
    named = any(bad in line and "finite" in line for line in end.said.splitlines())
    lost = "" if named else f"{bad} has {value}, and nobody says so: {end.said[-500:]}"
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
    """A model of another package whose gradient stops being a number: the run waits for a cure."""
    site = scratch / "site"
    info = site / "linear_model-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (site / "linear_model.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: linear-model\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medaug.models]\nlinear = linear_model:Linear\n")
    words = [
        "train", "--data", str(world.cache), "--model", "linear", "--run", "out",
        "--images", "160", "--device", "cpu", "--set", "train.batch=8",
        "--set", "train.snapshot_every=40", "--set", "train.precision=float32",
    ]  # fmt: skip
    before = partial(_first_on_path, str(site))
    victim = world.victim("train")
    whole, folder = scratch / "nan-whole", scratch / "nan-gradient"
    good = run(Command(words, before=before), whole)
    at = int(draws.integers(1, 20))
    bad = run(Command(words, before=before, environment={"NAN_AT": str(at)}), folder)
    lost = "" if bad.code == 2 and "finite number" in bad.sentence else f"ended with {bad.code}"
    cured = run(Command(words, before=before), folder)
    if good.code or cured.code:
        lost = lost or f"undisturbed {good.code}, cured {cured.code}"
    lost = lost or difference(victim.contents(whole), victim.contents(folder))
    shutil.rmtree(whole)
    shutil.rmtree(folder)
    return Trial("gradient", f"NaN from turn {at}", lost, [good, bad, cured], "refused, then cured")


def _first_on_path(site: str) -> None:
    import sys

    sys.path.insert(0, site)


def _spoil(source: Path, target: Path, draws: np.random.Generator) -> str:
    """Write a weight file again with one value that is no number; the name of its tensor."""
    from medaug.training.checkpoint import read_tensors, write_tensors

    tensors, header, _ = read_tensors(source)
    names = sorted(k for k, v in tensors.items() if v.is_floating_point() and v.numel())
    name = names[int(draws.integers(len(names)))]
    flat = tensors[name].reshape(-1)
    flat[int(draws.integers(flat.numel()))] = float("nan")
    write_tensors(target, {**tensors, name: flat.reshape(tensors[name].shape)}, header)
    return name
