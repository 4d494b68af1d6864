"""One more model, in another package, trains, resumes and synthesises through the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = '''\
"""A linear autoencoder with a Gaussian prior."""

import torch
from torch import nn

from medaug.models.losses import gaussian_kl, half_squared_error, reparametrise
from medaug.models.base import Model, Move, OptimizerSettings, Turn


class Linear(Model):
    def __init__(self, shape, latent_dim=8):
        super().__init__()
        self.size, self.noise_shape = (shape.channels, shape.size, shape.size), (latent_dim,)
        pixels = shape.channels * shape.size**2
        self.encoder = nn.Linear(pixels, 2 * latent_dim)
        self.decoder = nn.Linear(latent_dim, pixels)

    def players(self):
        return {"both": (self.encoder, self.decoder)}

    def turns(self, progress):
        return [Turn(self.play)]

    def optim(self, progress):
        return {"both": OptimizerSettings(1e-3)}

    def play(self, batch):
        mu, logvar = self.encoder(batch.x.flatten(1)).chunk(2, 1)
        x_hat = self.decode(reparametrise(mu, logvar), batch.cond)
        distance = (1.0, half_squared_error(x_hat, batch.x))
        return {"both": Move({"distance": distance, "kl": (0.1, gaussian_kl(mu, logvar))})}

    def prior(self, noise, cond):
        return noise

    def decode(self, z, cond):
        return torch.tanh(self.decoder(z)).unflatten(1, self.size)
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that Python takes for one with an installed package."""
    folder = tmp_path / "site"
    info = folder / "linear_model-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "linear_model.py").write_text(MODEL)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: linear-model\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medaug.models]\nlinear = linear_model:Linear\n")
    return folder


def medaug(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-c", "from medaug.cli import main; main()", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_another_packages_model_goes_the_whole_way(
    package: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    assert len(MODEL.splitlines()) < 40
    run, out = tmp_path / "run", tmp_path / "out"
    settings = ["--data", str(phantom_cache), "--model", "linear", "--run", str(run)]
    for images in ("32", "64"):
        done = medaug(package, "train", *settings, "--images", images, "--set", "train.batch=16")
        assert done.returncode == 0, done.stderr
    assert "going on from image 32" in done.stderr
    done = medaug(
        package, "synthesize", "--no-filter", "-n", "3", "--out", str(out), "--run", str(run)
    )
    assert done.returncode == 0, done.stderr
    assert len(list((out / "imagesTr").iterdir())) == 3
    assert "linear         from linear-model" in medaug(package, "models").stdout
