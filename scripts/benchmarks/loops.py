"""Training loops written by hand, on the networks and batches of our models.

Each game comes in two manners.  A *bare* loop is what one would write to be quick: one batch stays
where it is, players share their forward passes, and there is no feed, no warp, no average, no
guard and no log.  Optimisers are torch's own, fused where there is such a one; mixed precision and
channels-last are as medaug chose them.  A test compares its losses and steps with medaug's, number
by number.  A *plain* loop is what a paper's repository holds: a DataLoader, a forward and a
backward pass for each player, ``requires_grad`` switched to and fro, and losses read after every
step.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler

from medaug.models.base import OptimizerSettings
from medaug.models.networks.spatial import squash
from medaug.models.priors import FlowPrior
from medaug.models.spatial_vaegan import SpatialVAEGAN
from medaug.models.vaegan import VAEGAN
from medaug.models.wgan_gp import WGANGP
from medaug.runtime.device import autocast

EPOCH = 5000
"""Batches in an epoch of a rival, so that its end, where workers are forked again, counts for
nothing."""
WARM = 5
"""Steps before a watch starts."""
Mixed = Callable[[], AbstractContextManager[object]]
"""Opens mixed precision, or nothing."""
Player = tuple[Optimizer, Callable[[Tensor], Tensor]]
Players = tuple[Player, Player]


class Done(Exception):
    """Enough was measured."""


class Watch:
    """Counts steps of ``batch`` images, after some to warm up, until ``seconds`` have passed."""

    def __init__(self, batch: int, seconds: float) -> None:
        self.batch, self.seconds = batch, seconds
        self.steps, self.started, self.speed = 0, 0.0, 0.0

    def step(self, batches: int = 1) -> None:
        """Another step is done.

        Raises:
            Done: the time is over; ``speed`` is in images per second.
        """
        self.steps += batches
        if self.started == 0.0:
            if self.steps >= WARM:
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


def pace(round: Callable[[], int], seconds: float) -> float:
    """Images per second of rounds that return how many they saw, over at least ``seconds``."""
    images, started = 0, time.perf_counter()
    while images == 0 or time.perf_counter() - started < seconds:
        images += round()
    synchronize()
    return images / (time.perf_counter() - started)


def loader(data: Any, batch: int, device: torch.device) -> DataLoader[Any]:
    """Shuffled batches of a tensor or a list, by workers where they go to a GPU."""
    gpu = device.type == "cuda"
    how = {"num_workers": 4, "pin_memory": True, "persistent_workers": True} if gpu else {}
    return DataLoader(data, batch, sampler=RandomSampler(data, num_samples=EPOCH * batch), **how)


def endless(x: Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Batches on the device for ever."""
    batches = loader(x, batch, device)
    while True:
        for given in batches:
            yield given.to(device)


def sampled(mu: Tensor, logvar: Tensor) -> Tensor:
    """A draw from the normal distribution of an encoder."""
    return mu + (0.5 * logvar).exp() * torch.randn_like(mu)


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Kullback-Leibler divergence from N(0, I), the mean over batch and code."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean()


def bce(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of logits that should say real, or not."""
    return F.softplus(-logits if real else logits).mean()


def penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """The gradient penalty of WGAN-GP, unweighted, in float32."""
    with torch.autocast(real.device.type, enabled=False):
        between = torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1, device=real.device))
        between.requires_grad_()
        (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
        return ((slope.flatten(1).square().sum(1) + 1e-12).sqrt() - 1).square().mean()


def scored(model: Any, images: Tensor) -> Tensor:
    """A critic's scores, one an image."""
    return model.discriminator.network(images, None)[0].float()


def drawn(model: Any, count: int) -> Tensor:
    """Images that a generator draws, float32 in [-1, 1]."""
    device = next(model.parameters()).device
    noise = torch.randn(count, *model.noise_shape, device=device)
    return model.decoder(noise, None).float().tanh()


def descend(optimizer: Optimizer, loss: Tensor, max_norm: float | None = None) -> Tensor:
    """Step by a loss, its gradient clipped to ``max_norm``; the loss without its graph."""
    optimizer.zero_grad()
    loss.backward()
    if max_norm is not None:
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], max_norm)
    optimizer.step()
    return loss.detach()


@dataclass
class Loop:
    """One round of a game on a resident batch.

    Attributes:
        step: plays it and returns each player's loss in its last turn.
        images: how many images it sees.
    """

    step: Callable[[], dict[str, Any]]
    images: int


def critic_game(
    model: Any,
    batches: Iterator[Tensor],
    images: int,
    turns: int,
    critic: Player,
    other: Player,
    read: Callable[[Tensor], Any] = Tensor.item,
) -> Loop:
    """Turns of the critic, then one of the other player, a batch for each.

    Args:
        model: whose discriminator is the critic.
        batches: real images without end.
        images: in a batch.
        turns: of the critic in a round.
        critic: the critic's optimiser, and its loss on a batch.
        other: the same of the player that it judges.
        read: called with each loss after its step, by default to read it.
    """

    def step() -> dict[str, Any]:
        toggled(model.discriminator, True)
        for _ in range(turns):
            judged = read(descend(critic[0], critic[1](next(batches))))
        toggled(model.discriminator, False)
        made = read(descend(other[0], other[1](next(batches))))
        return {"discriminator": judged, "generator": made}

    return Loop(step, (turns + 1) * images)


def wgan_gp_players(model: Any, mixed: Mixed, critic: Optimizer, generator: Optimizer) -> Players:
    """Algorithm 1 of Gulrajani et al. 2017, with the weights that the model has."""
    rules, score = model.discriminator, partial(scored, model)

    def judge(real: Tensor) -> Tensor:
        with mixed():
            with torch.no_grad():
                fake = drawn(model, len(real))
            on_real = score(real)
        slope = rules.gradient_penalty * penalty(score, real, fake)
        with mixed():
            loss = score(fake).mean() - on_real.mean() + slope
        return loss + rules.drift * on_real.square().mean() if rules.drift else loss

    def play(real: Tensor) -> Tensor:
        with mixed():
            return -score(drawn(model, len(real))).mean()

    return (critic, judge), (generator, play)


def toggled(network: nn.Module, on: bool) -> None:
    """Whether a network's weights take gradients."""
    for parameter in network.parameters():
        parameter.requires_grad_(on)


def bare(model: nn.Module, x: Tensor, precision: str, progress: float = 0.0) -> Loop:
    """The bare loop of ``model`` at ``progress``.

    Args:
        model: one of ours without conditions; its networks are trained in place.
        x: what every turn sees, (b, c, h, w) in [-1, 1], channel 0 the image, the rest masks.
        precision: ``float32`` or ``bfloat16``.
        progress: decides phase and rates, as in ``Model.turns``.
    """
    if precision == "bfloat16":
        x = x.to(memory_format=torch.channels_last)
    mixed = partial(autocast, x.device, precision)
    if isinstance(model, WGANGP):
        return bare_wgan_gp(model, x, mixed, progress)
    if isinstance(model, VAEGAN):
        return bare_vaegan(model, x, mixed, progress)
    assert isinstance(model, SpatialVAEGAN)
    phase = sum(progress >= bound for bound in model.phases)
    return (autoencode, sharpen, prior)[phase](model, x, mixed, progress)


def adam(parameters: Iterable[nn.Parameter], how: OptimizerSettings) -> Optimizer:
    """Torch's fused AdamW, which is Adam where nothing decays."""
    return torch.optim.AdamW(
        parameters, lr=how.lr, betas=how.betas, weight_decay=how.weight_decay, fused=True
    )


def likeness(raw: Tensor, x: Tensor, mask_weight: float) -> Tensor:
    """Absolute error of the image and cross-entropy of the masks."""
    image = F.l1_loss(raw[:, :1].tanh(), x[:, :1])
    return image + mask_weight * F.binary_cross_entropy_with_logits(raw[:, 1:], (x[:, 1:] + 1) / 2)


def autoencode(model: SpatialVAEGAN, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """Encoder and decoder against one loss."""
    how = model.optim(progress)["encoder"]
    optimizer = adam([*model.encoder.parameters(), *model.decoder.parameters()], how)

    def step() -> dict[str, Tensor]:
        with mixed():
            mu, logvar = model.encoder(x, None)
            raw = model.decoder(sampled(mu, logvar), None).float()
            difference = raw[:, :1].tanh() - x[:, :1]
            edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
            loss = likeness(raw, x, model.mask_weight) + 0.5 * edges
            loss = loss + model.kl_weight * divergence(mu, logvar)
        return {"encoder": descend(optimizer, loss)}

    return Loop(step, len(x))


def sharpen(model: SpatialVAEGAN, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """Decoder against discriminator, both from one forward pass."""
    how = model.optim(progress)
    ours, theirs = list(model.decoder.parameters()), list(model.discriminator.parameters())
    decoder, discriminator = adam(ours, how["decoder"]), adam(theirs, how["discriminator"])

    def step() -> dict[str, Tensor]:
        with mixed():
            with torch.no_grad():
                mu, logvar = model.encoder(x, None)
            raw = model.decoder(sampled(mu, logvar), None).float()
            logits, features = model.discriminator(torch.cat([x, squash(raw, 1)]), None)
            real, fake = logits.float().chunk(2)
            texture = sum(F.l1_loss(f[len(x) :], f[: len(x)].detach()) for f in features)
            sharp = 0.5 * likeness(raw, x, model.mask_weight)
            sharp = sharp - model.adversarial * fake.mean() + model.texture * texture
            judged = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        decoder.zero_grad()
        discriminator.zero_grad()
        sharp.backward(inputs=ours, retain_graph=True)
        judged.backward(inputs=theirs)
        decoder.step()
        discriminator.step()
        return {"decoder": sharp.detach(), "discriminator": judged.detach()}

    return Loop(step, len(x))


def prior(model: SpatialVAEGAN, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """The flow learns codes of as many batches as ``x`` holds."""
    assert isinstance(model.code, FlowPrior)
    flow = model.code
    how = model.optim(progress)["flow"]
    optimizer = adam(flow.velocity.parameters(), how)

    def step() -> dict[str, Tensor]:
        with mixed():
            with torch.no_grad():
                mu, _ = model.encoder(x, None)
                code = flow.observe(mu)
                noise = torch.randn_like(code)
                t = torch.randn(len(code), device=code.device).sigmoid()
                z_t = torch.lerp(noise, code, t[:, None, None, None])
            loss = F.mse_loss(flow.velocity(z_t, t, None), code - noise)
        return {"flow": descend(optimizer, loss, how.max_norm)}

    return Loop(step, len(x))


def bare_wgan_gp(model: WGANGP, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """The critic's turns, then the generator's."""
    how = model.optim(progress)
    critic = adam(model.discriminator.parameters(), how["discriminator"])
    generator = adam(model.decoder.parameters(), how["generator"])
    players = wgan_gp_players(model, mixed, critic, generator)
    batches, turns = itertools.repeat(x), model.discriminator_turns
    return critic_game(model, batches, len(x), turns, *players, read=lambda loss: loss)


def bare_vaegan(model: VAEGAN, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """Larsen's three players from one forward pass.

    The authors' gate is left out: medaug takes all gradients whether it is open or not.
    """
    assert model.reconstructions_play
    assert model.saturating
    how = model.optim(progress)["encoder"]
    networks = (model.encoder, model.decoder, model.discriminator)
    players = [list(network.parameters()) for network in networks]
    everyone = torch.optim.RMSprop(
        [p for player in players for p in player],
        lr=how.lr,
        alpha=0.9,
        weight_decay=how.weight_decay,
        foreach=True,
    )

    def step() -> dict[str, Tensor]:
        with mixed():
            mu, logvar = model.encode(x, None)
            z = sampled(mu, logvar)
            fakes = model.decoder(torch.cat([z, torch.randn_like(z)]), None).tanh()
            logits, features = model.discriminator(torch.cat([x, fakes]), None)
            on_real, on_hat, on_prior = logits.chunk(3)
            f_real, f_hat, _ = features[-1].chunk(3)
            distance = 0.5 * F.mse_loss(f_hat.float(), f_real.detach().float())
            fake = 0.5 * (bce(on_prior, False) + bce(on_hat, False))
            game = model.real_weight * bce(on_real, True) + (1 - model.real_weight) * fake
            kl = divergence(mu, logvar) * mu[0].numel() / f_real[0].numel()
            losses = {
                "encoder": distance + kl,
                "decoder": model.feature_weight * distance - game / (1 - model.real_weight),
                "discriminator": game,
            }
        everyone.zero_grad()
        for number, (loss, parameters) in enumerate(zip(losses.values(), players, strict=True)):
            loss.backward(inputs=parameters, retain_graph=number < len(players) - 1)
        everyone.step()
        return {player: loss.detach() for player, loss in losses.items()}

    return Loop(step, len(x))


def plain_vaegan(model: Any, x: Tensor, batch: int, precision: str) -> Loop:
    """Larsen's three players, each with passes of its own."""
    device = next(model.parameters()).device
    optimizers = {
        name: torch.optim.RMSprop(getattr(model, name).parameters(), lr=1e-5, alpha=0.9)
        for name in ("encoder", "decoder", "discriminator")
    }
    batches = endless(x, batch, device)

    def made(real: Tensor) -> tuple[Tensor, Tensor]:
        z = sampled(*model.encode(real, None))
        codes = (z, torch.randn_like(z))
        hat, sample = (model.decoder(code, None).tanh().float() for code in codes)
        return hat, sample

    def judge(real: Tensor) -> Tensor:
        loss = bce(model.discriminator(real, None)[0], True)
        for fake in made(real):
            loss = loss + 0.5 * bce(model.discriminator(fake.detach(), None)[0], False)
        return loss

    def decode(real: Tensor) -> Tensor:
        hat, sample = made(real)
        features = model.discriminator(real, None)[1][-1].detach()
        on_hat, of_hat = model.discriminator(hat, None)
        loss = 0.1 * F.mse_loss(of_hat[-1].float(), features.float()) + bce(on_hat, True)
        return loss + bce(model.discriminator(sample, None)[0], True)

    def encode(real: Tensor) -> Tensor:
        mu, logvar = model.encode(real, None)
        hat = model.decoder(sampled(mu, logvar), None).tanh().float()
        features = model.discriminator(real, None)[1][-1].detach()
        distance = F.mse_loss(model.discriminator(hat, None)[1][-1].float(), features.float())
        return distance + 0.01 * divergence(mu, logvar)

    def step() -> dict[str, float]:
        real, losses = next(batches), {}
        for name, loss_on in (("discriminator", judge), ("decoder", decode), ("encoder", encode)):
            toggled(model.discriminator, name == "discriminator")
            with autocast(device, precision):
                loss = loss_on(real)
            losses[name] = descend(optimizers[name], loss).item()
        return losses

    return Loop(step, batch)


def plain_wgan_gp(model: Any, x: Tensor, batch: int, precision: str) -> Loop:
    """The critic's turns, then the generator's."""
    device = next(model.parameters()).device
    critic, generator = (
        torch.optim.Adam(network.parameters(), lr=1e-5, betas=(0.5, 0.9))
        for network in (model.discriminator, model.decoder)
    )
    players = wgan_gp_players(model, partial(autocast, device, precision), critic, generator)
    return critic_game(model, endless(x, batch, device), batch, model.discriminator_turns, *players)


def plain_gvae(model: Any, x: Tensor, batch: int, precision: str) -> Loop:
    """The critic's turns on reconstructions and samples, then the autoencoder's."""
    device = next(model.parameters()).device
    both = [*model.encoder.parameters(), *model.decoder.parameters()]
    critic, autoencoder = (
        torch.optim.Adam(parameters, lr=1e-5, betas=(0.0, 0.9))
        for parameters in (model.discriminator.parameters(), both)
    )
    score = partial(scored, model)

    def made(real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = model.encode(real, None)
        z = sampled(mu, logvar)
        hat, sample = (model.decode(code, None) for code in (z, torch.randn_like(z)))
        return hat, sample, divergence(mu, logvar)

    def judge(real: Tensor) -> Tensor:
        with autocast(device, precision):
            fakes = [fake.detach() for fake in made(real)[:2]]
            loss = sum(score(fake).mean() - score(real).mean() for fake in fakes)
        return loss + sum(10 * penalty(score, real, fake) for fake in fakes)

    def play(real: Tensor) -> Tensor:
        with autocast(device, precision):
            hat, sample, kl = made(real)
            loss = kl + 10 * F.l1_loss(hat, real)
            return loss - score(hat).mean() - score(sample).mean()

    players = (critic, judge), (autoencoder, play)
    return critic_game(model, endless(x, batch, device), batch, model.critic_turns, *players)
