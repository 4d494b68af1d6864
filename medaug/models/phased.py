"""VAE/GAN on a code grid, in three phases: autoencode, sharpen, learn the codes.

Larsen's encoder, decoder and discriminator features with a code that keeps its place, and the idea
of Xu et al. 2019 (AAAE) of learning the distribution of codes afterwards, done as a rectified flow
(Liu et al. 2022).

1. *autoencode*: encoder and decoder minimise absolute error of the image and of its differences,
   cross-entropy of the masks, and a weak KL.
2. *sharpen*: the encoder rests; the decoder plays against a spectral-norm patch discriminator
   (hinge), whose features are the learned distance.
3. *prior*: encoder and decoder rest; a flow learns the codes, whitened per channel.

Healthy: ``image`` and ``mask`` fall in phase 1 and stay in phase 2, where ``texture`` falls and
``real`` and ``fake`` stay between 0.5 and 1; ``velocity`` falls from about 2 towards 1 or below.
``real`` and ``fake`` near 0: the discriminator has won and the decoder invents texture.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.errors import ConfigError
from medaug.losses import (
    absolute_error,
    gaussian_kl,
    gradient_error,
    half_squared_error,
    hinge_fake,
    hinge_real,
    mask_error,
    per_sample,
    reparametrise,
)
from medaug.models.base import Batch, Model, Move, Optim, Shape, Turn
from medaug.networks.flow import Velocity, integrate
from medaug.networks.spatial import PatchDiscriminator, SpatialDecoder, SpatialEncoder, squash


class Phased(Model):
    """See the module's docstring.

    Args:
        shape: what the data dictate.
        code_channels: channels of the code.
        code_stride: pixels a code covers along a side; 0 chooses 8 from 128 pixels on, else 4.
        width: channels of the autoencoder's first level.
        flow_width: channels of the flow.
        phases: shares of the images at which sharpening and the prior begin.
        prior_batches: batches a step of the flow takes at once.
        mask_weight: weight of the mask's cross-entropy beside the image's absolute error.
        kl_weight: weight of the KL per code dimension.
        adversarial: weight of the patch logits in the decoder's move.
        texture: weight of the distance in discriminator features.
        steps: Heun steps from noise to a code.
        lr: rate of autoencoder and flow; ``sharpen_lr`` that of the decoder in phase 2, a half
            of the discriminator's.
        sharpen_lr: see ``lr``.
    """

    def __init__(
        self,
        shape: Shape,
        code_channels: int = 4,
        code_stride: int = 0,
        width: int = 24,
        flow_width: int = 128,
        phases: tuple[float, float] = (0.4, 0.65),
        prior_batches: int = 2,
        mask_weight: float = 3.0,
        kl_weight: float = 1e-3,
        adversarial: float = 0.1,
        texture: float = 0.5,
        steps: int = 24,
        lr: float = 1e-3,
        sharpen_lr: float = 2e-4,
    ) -> None:
        super().__init__()
        stride = code_stride or (8 if shape.size >= 128 else 4)
        if shape.size % stride or stride not in (2, 4, 8, 16):
            raise ConfigError(
                f"config model.code_stride: {stride} must be 2, 4, 8 or 16 and divide the image "
                f"size, which is {shape.size}"
            )
        if len(phases) != 2 or not 0 <= phases[0] <= phases[1] <= 1:
            raise ConfigError(
                f"config model.phases: two ascending shares in [0, 1], got {list(phases)}"
            )
        grid = shape.size // stride
        sizes = (shape.channels, code_channels, width, stride, shape.cond_dim)
        self.encoder, self.decoder = SpatialEncoder(*sizes), SpatialDecoder(*sizes)
        self.discriminator = PatchDiscriminator(shape.channels, width, shape.cond_dim)
        patch = 2 if grid >= 16 and grid % 2 == 0 else 1
        self.flow = Velocity(code_channels, grid, patch, flow_width, shape.cond_dim)
        self.noise_shape = (code_channels, grid, grid)
        for name, start in (("seen", 0.0), ("mean", 0.0), ("square", 1.0)):
            self.register_buffer(f"code_{name}", torch.full((1, code_channels, 1, 1), start))
        self.shape, self.phases, self.prior_batches = shape, tuple(phases), prior_batches
        self.mask_weight, self.kl_weight = mask_weight, kl_weight
        self.adversarial, self.texture, self.steps = adversarial, texture, steps
        self.lr, self.sharpen_lr = lr, sharpen_lr

    uncertainty = "the code partly redrawn by the flow"
    code_seen: Tensor
    code_mean: Tensor
    code_square: Tensor

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "encoder": (self.encoder,),
            "decoder": (self.decoder,),
            "discriminator": (self.discriminator,),
            "flow": (self.flow,),
        }

    def turns(self, progress: float) -> Sequence[Turn]:
        if progress < self.phases[0]:
            return [Turn(self.autoencode)]
        if progress < self.phases[1]:
            return [Turn(self.sharpen)]
        return [Turn(self.fit_prior, self.prior_batches)]

    def optim(self, progress: float) -> dict[str, Optim]:
        bounds = (0.0, *self.phases, 1.0)
        phase = sum(progress >= bound for bound in self.phases)
        start, end = bounds[phase], bounds[phase + 1]
        within = (progress - start) / max(end - start, 1e-9)
        pace = min(1.0, (within + 1e-3) / 0.03) * max(1 - within, 0.0) ** 0.5
        if phase == 1:
            decoder = Optim(self.sharpen_lr * pace, betas=(0.0, 0.99))
        else:
            decoder = Optim(self.lr * pace, weight_decay=0.01)
        return {
            "encoder": Optim(self.lr * pace, weight_decay=0.01),
            "decoder": decoder,
            "discriminator": Optim(2 * self.sharpen_lr * pace, betas=(0.0, 0.99)),
            "flow": Optim(self.lr * pace, weight_decay=0.01, max_norm=1.0),
        }

    def autoencode(self, batch: Batch) -> dict[str, Move]:
        mu, logvar = self.encoder(batch.x, batch.cond)
        raw = self.decoder(reparametrise(mu, logvar), batch.cond)
        move = Move(
            {
                **self.likeness(raw, batch.x, 1.0),
                "edges": (
                    0.5,
                    gradient_error(raw[:, : self.shape.images].tanh(), self.grey(batch)),
                ),
                "kl": (self.kl_weight, gaussian_kl(mu, logvar)),
            }
        )
        return {"encoder": move, "decoder": move}

    def sharpen(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        with torch.no_grad():  # the encoder rests
            mu, logvar = self.encoder(x, cond)
            self.observe(mu)
        raw = self.decoder(reparametrise(mu, logvar), cond)
        x_hat = squash(raw, self.shape.images).to(x.dtype)
        both = None if cond is None else cond.repeat(2, 1)
        logits, features = self.discriminator(torch.cat([x, x_hat]), both)
        on_real, on_fake = logits.chunk(2)
        pairs = [f.chunk(2) for f in features]
        texture = torch.stack([absolute_error(fake, real.detach()) for real, fake in pairs]).sum(0)
        decoder = Move(
            {
                **self.likeness(raw, x, 0.5),
                "adversarial": (self.adversarial, -per_sample(on_fake)),
                "texture": (self.texture, texture),
            }
        )
        discriminator = Move(
            {"real": (1.0, hinge_real(on_real)), "fake": (1.0, hinge_fake(on_fake))}
        )
        return {"decoder": decoder, "discriminator": discriminator}

    def fit_prior(self, batch: Batch) -> dict[str, Move]:
        with torch.no_grad():  # encoder and decoder rest
            mu, _ = self.encoder(batch.x, batch.cond)
            self.observe(mu)
            code = (mu - self.code_mean) / self.code_std()
            noise = torch.randn_like(code)
            t = torch.randn(len(code), device=code.device).sigmoid()
            share = t[:, None, None, None]
            z_t = (1 - share) * noise + share * code
        velocity = self.flow(z_t, t, batch.cond)
        return {"flow": Move({"velocity": (2.0, half_squared_error(velocity, code - noise))})}

    def grey(self, batch: Batch) -> Tensor:
        return batch.x[:, : self.shape.images]

    def likeness(self, raw: Tensor, x: Tensor, weight: float) -> dict[str, tuple[float, Tensor]]:
        """Absolute error of the image and, where there are masks, their cross-entropy."""
        images = self.shape.images
        terms = {"image": (weight, absolute_error(raw[:, :images].tanh(), x[:, :images]))}
        if self.shape.channels > images:
            error = mask_error(raw[:, images:], x[:, images:])
            terms["mask"] = (weight * self.mask_weight, error)
        return terms

    def observe(self, mu: Tensor) -> None:
        """Fold codes into the running moments that whitening uses: an average over all seen."""
        self.code_seen += len(mu)
        share = len(mu) / self.code_seen
        self.code_mean += share * (mu.mean((0, 2, 3), keepdim=True) - self.code_mean)
        self.code_square += share * (mu.square().mean((0, 2, 3), keepdim=True) - self.code_square)

    def code_std(self) -> Tensor:
        return (self.code_square - self.code_mean.square()).clamp_min(1e-6).sqrt()

    def encode(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (b, code, grid, grid)."""
        return self.encoder(x, cond)

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        code = integrate(lambda z, t: self.flow(z, t, cond), noise, 0.0, self.steps)
        return self.code_mean + self.code_std() * code

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return squash(self.decoder(z, cond).float(), self.shape.images)

    def vary(
        self, noise: Tensor, z: Tensor, x: Tensor, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        """The code with a share ``how`` of the way back to noise drawn anew."""
        code = (z - self.code_mean) / self.code_std()
        start = 1 - how
        steps = max(2, round(self.steps * how))
        z_t = start * code + how * fresh
        code = integrate(lambda z, t: self.flow(z, t, cond), z_t, start, steps)
        return self.code_mean + self.code_std() * code
