"""Bare training loops: the networks and losses of our models as one would write them by hand.

One batch stays where it is; there is no feed, no warp, no average, no account, no guard and no
log.  Optimisers are torch's own, fused where there is such a one; mixed precision and channels-last
are as medaug chose them.  A test compares these losses and steps with medaug's, number by number.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.models.base import OptimizerSettings
from medaug.models.networks.spatial import squash
from medaug.models.priors import FlowPrior
from medaug.models.spatial_vaegan import SpatialVAEGAN
from medaug.models.vaegan import VAEGAN
from medaug.models.wgan_gp import WGANGP
from medaug.runtime.device import autocast

Mixed = Callable[[], AbstractContextManager[object]]
"""Opens mixed precision, or nothing."""


@dataclass
class Loop:
    """One round of a game on a resident batch.

    Attributes:
        step: plays it and returns each player's loss in its last turn.
        images: how many images it sees.
    """

    step: Callable[[], dict[str, Tensor]]
    images: int


def loop(model: nn.Module, x: Tensor, precision: str, progress: float = 0.0) -> Loop:
    """The bare loop of ``model`` at ``progress``.

    Args:
        model: one of ours without conditions; its networks are trained in place.
        x: what every turn sees, (b, c, h, w) in [-1, 1], channel 0 the image, the rest masks.
        precision: ``float32`` or ``bfloat16``.
        progress: decides phase and rates, as in ``Model.turns``.
    """
    if precision == "bfloat16":
        x = x.to(memory_format=torch.channels_last)

    def mixed() -> AbstractContextManager[object]:
        return autocast(x.device, precision)

    if isinstance(model, WGANGP):
        return wgan_gp(model, x, mixed, progress)
    if isinstance(model, VAEGAN):
        return vaegan(model, x, mixed, progress)
    assert isinstance(model, SpatialVAEGAN)
    phase = sum(progress >= bound for bound in model.phases)
    return (autoencode, sharpen, prior)[phase](model, x, mixed, progress)


def adam(parameters: Iterable[nn.Parameter], how: OptimizerSettings) -> torch.optim.Optimizer:
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
            raw = model.decoder(mu + (0.5 * logvar).exp() * torch.randn_like(mu), None).float()
            difference = raw[:, :1].tanh() - x[:, :1]
            edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
            kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean()
            loss = likeness(raw, x, model.mask_weight) + 0.5 * edges + model.kl_weight * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"encoder": loss.detach()}

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
            raw = model.decoder(mu + (0.5 * logvar).exp() * torch.randn_like(mu), None).float()
            logits, features = model.discriminator(torch.cat([x, squash(raw, 1)]), None)
            real, fake = logits.float().chunk(2)
            texture = sum(F.l1_loss(f[len(x) :], f[: len(x)].detach()) for f in features)
            sharp = 0.5 * likeness(raw, x, model.mask_weight)
            sharp = sharp - model.adversarial * fake.mean() + model.texture * texture
            told_apart = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        decoder.zero_grad()
        discriminator.zero_grad()
        sharp.backward(inputs=ours, retain_graph=True)
        told_apart.backward(inputs=theirs)
        decoder.step()
        discriminator.step()
        return {"decoder": sharp.detach(), "discriminator": told_apart.detach()}

    return Loop(step, len(x))


def prior(model: SpatialVAEGAN, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """The flow learns codes of as many batches as ``x`` holds."""
    assert isinstance(model.code, FlowPrior)
    flow = model.code
    how = model.optim(progress)["flow"]
    parameters = list(flow.velocity.parameters())
    optimizer = adam(parameters, how)

    def step() -> dict[str, Tensor]:
        with mixed():
            with torch.no_grad():
                mu, _ = model.encoder(x, None)
                code = flow.observe(mu)
                noise = torch.randn_like(code)
                t = torch.randn(len(code), device=code.device).sigmoid()
                z_t = torch.lerp(noise, code, t[:, None, None, None])
            loss = F.mse_loss(flow.velocity(z_t, t, None), code - noise)
        optimizer.zero_grad()
        loss.backward()
        if how.max_norm is not None:
            nn.utils.clip_grad_norm_(parameters, how.max_norm)
        optimizer.step()
        return {"flow": loss.detach()}

    return Loop(step, len(x))


def wgan_gp(model: WGANGP, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """Algorithm 1 of Gulrajani et al. 2017: the critic's turns, then the generator's."""
    how = model.optim(progress)
    ours, theirs = list(model.decoder.parameters()), list(model.discriminator.parameters())
    generator, critic = adam(ours, how["generator"]), adam(theirs, how["discriminator"])
    rules = model.discriminator

    def score(u: Tensor) -> Tensor:
        return rules.network(u, None)[0]

    def fakes() -> Tensor:
        noise = torch.randn(len(x), *model.noise_shape, device=x.device)
        return model.decoder(noise, None).float().tanh()

    def judge() -> Tensor:
        with mixed():
            with torch.no_grad():
                fake = fakes()
            real = score(x)
        with torch.autocast(x.device.type, enabled=False):
            between = torch.lerp(x, fake, torch.rand(len(x), 1, 1, 1, device=x.device))
            between.requires_grad_()
            (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
            norm = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()
        with mixed():
            on_fake = score(fake)
        loss = on_fake.mean() - real.mean() + rules.gradient_penalty * (norm - 1).square().mean()
        if rules.drift:
            loss = loss + rules.drift * real.square().mean()
        critic.zero_grad()
        loss.backward()
        critic.step()
        return loss.detach()

    def generate() -> Tensor:
        with mixed():
            loss = -score(fakes()).mean()
        generator.zero_grad()
        loss.backward(inputs=ours)
        generator.step()
        return loss.detach()

    def step() -> dict[str, Tensor]:
        for _ in range(model.discriminator_turns):
            judged = judge()
        return {"discriminator": judged, "generator": generate()}

    return Loop(step, (model.discriminator_turns + 1) * len(x))


def vaegan(model: VAEGAN, x: Tensor, mixed: Mixed, progress: float) -> Loop:
    """Larsen's three players from one forward pass.

    The authors' gate is left out: medaug takes all gradients whether it is open or not.
    """
    assert model.reconstructions_play
    assert model.saturating
    how = model.optim(progress)["encoder"]
    players = [
        list(network.parameters())
        for network in (model.encoder, model.decoder, model.discriminator)
    ]
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
            z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
            fakes = model.decoder(torch.cat([z, torch.randn_like(z)]), None).tanh()
            logits, features = model.discriminator(torch.cat([x, fakes]), None)
            on_real, on_hat, on_prior = logits.chunk(3)
            f_real, f_hat, _ = features[-1].chunk(3)
            distance = 0.5 * F.mse_loss(f_hat.float(), f_real.detach().float())
            real = F.softplus(-on_real).mean()
            fake = 0.5 * (F.softplus(on_prior).mean() + F.softplus(on_hat).mean())
            game = model.real_weight * real + (1 - model.real_weight) * fake
            kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean()
            losses = {
                "encoder": distance + kl * mu[0].numel() / f_real[0].numel(),
                "decoder": model.feature_weight * distance - game / (1 - model.real_weight),
                "discriminator": game,
            }
        everyone.zero_grad()
        for number, (loss, parameters) in enumerate(zip(losses.values(), players, strict=True)):
            loss.backward(inputs=parameters, retain_graph=number < len(players) - 1)
        everyone.step()
        return {player: loss.detach() for player, loss in losses.items()}

    return Loop(step, len(x))
