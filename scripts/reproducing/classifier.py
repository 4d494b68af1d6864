"""Train a classifier of small grey pictures, for inception scores and features.

conv5-32, pool, conv5-64, pool, 1024 units, classes, with batch norm; grey levels in [-0.5, 0.5].
Prepare pictures in colour with ``--colour grey`` to score them.  Scores of two classifiers do not
compare, so every table gives the score of the real test set as well.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.errors import ConfigError, WeightsError
from medaug.core.seeds import derive, generator
from medaug.runtime.progress import progress
from medaug.training.checkpoint import read_tensors, write_tensors

BATCH = 100
CHUNK = 500
RATE = 1e-3


class Classifier(nn.Module):
    """Pictures (b, 1, s, s) in [-0.5, 0.5] to logits (b, classes)."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.size, self.classes = size, classes
        side = size // 4
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * side**2, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.ReLU(),
        )
        self.head = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.body(x), 0.5, self.training))

    @torch.inference_mode()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, 1024) and probabilities (n, classes) of grey levels uint8 (n, s, s)."""
        self.eval()
        device = self.head.weight.device
        features = [self.body(prepared(part).to(device)) for part in images.split(CHUNK)]
        rows = torch.cat(features)
        return rows.cpu(), self.head(rows).softmax(1).cpu()


def prepared(images: Tensor) -> Tensor:
    """Grey levels uint8 (n, s, s) as the classifier sees them."""
    return images[:, None].float() / 255 - 0.5


def train_classifier(
    images: Tensor, labels: Tensor, classes: int, *, count: int, seed: int = 0, device: str = "cpu"
) -> Classifier:
    """Train a classifier on ``count`` pictures; the same for the same arguments on the CPU.

    Args:
        images: grey levels uint8 (n, s, s).
        labels: class ids (n,).
        classes: how many there are.
        count: pictures seen, in batches of 100, reshuffled every epoch.
        seed: of weights, order and dropout.
        device: where it trains and stays.

    Raises:
        ConfigError: pictures in colour.
    """
    if images.ndim != 3:
        raise ConfigError(
            f"the classifier takes grey pictures (n, s, s), got {tuple(images.shape)}; prepare "
            "them with --colour grey"
        )
    torch.manual_seed(derive(seed, "classifier"))
    network = Classifier(images.shape[-1], classes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    steps = count // BATCH
    each = len(images) // BATCH
    with progress("classifier", steps * BATCH, "pictures") as bar:
        for step in range(steps):
            epoch, place = divmod(step, each)
            if place == 0:
                order = torch.randperm(len(images), generator=generator(seed, "classifier", epoch))
            chosen = order[place * BATCH : (place + 1) * BATCH]
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            torch.manual_seed(derive(seed, "classifier", "step", step))
            logits = network(prepared(images[chosen]).to(device))
            loss = F.cross_entropy(logits, labels[chosen].long().to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.advance(BATCH)
    return network.eval()


def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of pictures whose likeliest class is theirs."""
    return (network.look(images)[1].argmax(1) == labels).double().mean().item()


def save(path: Path, network: Classifier, facts: dict[str, float]) -> None:
    """Keep a classifier with what is known of it."""
    header = {"classifier": {"size": network.size, "classes": network.classes}, "facts": facts}
    write_tensors(path, network.state_dict(), header)


def load(path: Path, device: str = "cpu") -> tuple[Classifier, dict[str, float]]:
    """What ``save`` kept.

    Raises:
        WeightsError: no such file, not ours, or no classifier.
    """
    tensors, header, _ = read_tensors(path)
    if "classifier" not in header:
        raise WeightsError(f"{path}: holds no classifier")
    network = Classifier(**header["classifier"])
    network.load_state_dict(tensors)
    return network.to(device).eval(), header["facts"]


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp E KL(p(y | x) || p(y)) of probabilities (n, classes): mean and deviation over splits.

    Salimans et al. 2016; between 1 and the number of classes.
    """
    scores = []
    for part in probabilities.double().chunk(splits):
        part = part.clamp_min(1e-12)
        divergence = (part * (part.log() - part.mean(0).log())).sum(1)
        scores.append(divergence.mean().exp())
    found = torch.stack(scores)
    return found.mean().item(), found.std(correction=0).item()
