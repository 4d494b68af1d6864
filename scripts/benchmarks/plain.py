"""What a paper's repository holds: DataLoader, one pass a player, losses read after every step.

Also what every rival needs: a watch, data that last, and losses.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from medaug.runtime.device import autocast

EPOCH = 5000
"""Batches in an epoch of a rival, so that its end, with workers forked anew, counts for nothing."""


class Done(Exception):
    """Enough was measured."""


class Watch:
    """Counts steps, after some to warm up, until enough time has passed.

    Args:
        batch: images a step.
        seconds: to measure for.
        warm: steps before.
    """

    def __init__(self, batch: int, seconds: float, warm: int = 5) -> None:
        self.batch, self.seconds, self.warm = batch, seconds, warm
        self.steps, self.started, self.speed = 0, 0.0, 0.0

    def step(self, batches: int = 1) -> None:
        """Another step is done.

        Raises:
            Done: the time is over; ``speed`` is in images per second.
        """
        self.steps += batches
        if self.started == 0.0:
            if self.steps >= self.warm:
                synchronize()
                self.steps, self.started = 0, time.perf_counter()
        elif time.perf_counter() - self.started >= self.seconds:
            synchronize()
            self.speed = self.steps * self.batch / (time.perf_counter() - self.started)
            raise Done


def synchronize() -> None:
    """Wait for the GPU where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Long(Dataset[Any]):
    """The images ``x`` (n, c, h, w) over and over, ``EPOCH`` batches, each as ``shown``."""

    def __init__(
        self, x: Tensor, batch: int, shown: Callable[[Tensor], Any] = lambda image: image
    ) -> None:
        self.x, self.count, self.shown = x, EPOCH * batch, shown

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.shown(self.x[index % len(self.x)])


def loader(data: Dataset[Any], batch: int, device: torch.device) -> DataLoader[Any]:
    """Shuffled batches, by workers where they go to a GPU."""
    gpu = device.type == "cuda"
    how = {"num_workers": 4, "pin_memory": True, "persistent_workers": True} if gpu else {}
    return DataLoader(data, batch, shuffle=True, drop_last=True, **how)


def endless(x: Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Batches on the device for ever."""
    batches = loader(Long(x, batch), batch, device)
    for _ in itertools.count():
        for given in batches:
            yield given.to(device)


def toggled(network: nn.Module, on: bool) -> None:
    """Whether a network's weights take gradients."""
    for parameter in network.parameters():
        parameter.requires_grad_(on)


def sampled(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + (0.5 * logvar).exp() * torch.randn_like(mu)


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean()


def bce(logits: Tensor, real: bool) -> Tensor:
    target = torch.ones_like(logits) if real else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, target)


def stepped(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Step by a loss, and read it, as for a progress bar."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def plain_vaegan(model: Any, x: Tensor, batch: int, precision: str, watch: Watch) -> None:
    """Larsen's three players, each with passes of its own."""
    device = next(model.parameters()).device
    optimizers = {
        name: torch.optim.RMSprop(getattr(model, name).parameters(), lr=1e-5, alpha=0.9)
        for name in ("encoder", "decoder", "discriminator")
    }
    log: dict[str, float] = {}

    def drawn(real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mu, logvar = model.encode(real, None)
        z = sampled(mu, logvar)
        made = [model.decoder(code, None).tanh().float() for code in (z, torch.randn_like(z))]
        return made[0], made[1], mu, logvar

    for real in endless(x, batch, device):
        toggled(model.discriminator, True)
        with autocast(device, precision):
            hat, sample, _, _ = drawn(real)
            loss = bce(model.discriminator(real, None)[0], True)
            for fake in (hat, sample):
                loss = loss + 0.5 * bce(model.discriminator(fake.detach(), None)[0], False)
        log["discriminator"] = stepped(optimizers["discriminator"], loss)
        toggled(model.discriminator, False)
        with autocast(device, precision):
            hat, sample, _, _ = drawn(real)
            features = model.discriminator(real, None)[1][-1].detach()
            on_hat, of_hat = model.discriminator(hat, None)
            loss = 0.1 * F.mse_loss(of_hat[-1].float(), features.float()) + bce(on_hat, True)
            loss = loss + bce(model.discriminator(sample, None)[0], True)
        log["decoder"] = stepped(optimizers["decoder"], loss)
        with autocast(device, precision):
            mu, logvar = model.encode(real, None)
            hat = model.decoder(sampled(mu, logvar), None).tanh().float()
            features = model.discriminator(real, None)[1][-1].detach()
            distance = F.mse_loss(model.discriminator(hat, None)[1][-1].float(), features.float())
            loss = distance + 0.01 * divergence(mu, logvar)
        log["encoder"] = stepped(optimizers["encoder"], loss)
        watch.step()


def penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP's, in float32."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        on = score(between)
        (slope,) = torch.autograd.grad(on, between, torch.ones_like(on), create_graph=True)
    return 10 * ((slope.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def plain_wgan_gp(model: Any, x: Tensor, batch: int, precision: str, watch: Watch) -> None:
    """The critic's turns, then the generator's, each batch a step of its own."""
    device = next(model.parameters()).device
    critic = torch.optim.Adam(model.discriminator.parameters(), lr=1e-5, betas=(0.5, 0.9))
    generator = torch.optim.Adam(model.decoder.parameters(), lr=1e-5, betas=(0.5, 0.9))
    batches, log = endless(x, batch, device), {}

    def score(images: Tensor) -> Tensor:
        return model.discriminator.network(images, None)[0]

    def fakes(count: int) -> Tensor:
        noise = torch.randn(count, *model.noise_shape, device=device)
        return model.decoder(noise, None).float().tanh()

    while True:
        toggled(model.discriminator, True)
        for _ in range(model.discriminator_turns):
            real = next(batches)
            with autocast(device, precision):
                fake = fakes(len(real)).detach()
                loss = score(fake).float().mean() - score(real).float().mean()
            log["critic"] = stepped(critic, loss + penalty(score, real, fake))
        toggled(model.discriminator, False)
        next(batches)
        with autocast(device, precision):
            loss = -score(fakes(batch)).float().mean()
        log["generator"] = stepped(generator, loss)
        watch.step(model.discriminator_turns + 1)


def plain_gvae(model: Any, x: Tensor, batch: int, precision: str, watch: Watch) -> None:
    """The critic's turns on reconstructions and samples, then the autoencoder's."""
    device = next(model.parameters()).device
    both = [*model.encoder.parameters(), *model.decoder.parameters()]
    critic = torch.optim.Adam(model.discriminator.parameters(), lr=1e-5, betas=(0.0, 0.9))
    autoencoder = torch.optim.Adam(both, lr=1e-5, betas=(0.0, 0.9))
    batches, log = endless(x, batch, device), {}

    def score(images: Tensor) -> Tensor:
        return model.discriminator.network(images, None)[0]

    def drawn(real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mu, logvar = model.encode(real, None)
        z = sampled(mu, logvar)
        return model.decode(z, None), model.decode(torch.randn_like(z), None), mu, logvar

    while True:
        toggled(model.discriminator, True)
        for _ in range(model.critic_turns):
            real = next(batches)
            with autocast(device, precision):
                fakes = [made.detach() for made in drawn(real)[:2]]
                losses = [score(fake).float().mean() - score(real).float().mean() for fake in fakes]
            loss = sum(losses) + sum(penalty(score, real, fake) for fake in fakes)
            log["critic"] = stepped(critic, loss)
        toggled(model.discriminator, False)
        real = next(batches)
        with autocast(device, precision):
            hat, sample, mu, logvar = drawn(real)
            loss = divergence(mu, logvar) + 10 * F.l1_loss(hat, real)
            loss = loss - score(hat).float().mean() - score(sample).float().mean()
        log["autoencoder"] = stepped(autoencoder, loss)
        watch.step(model.critic_turns + 1)
