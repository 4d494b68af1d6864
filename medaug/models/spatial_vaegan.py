"""VAE/GAN on a code grid, in three phases: autoencode, sharpen, learn the codes.

Larsen's encoder, decoder and discriminator features with a code that keeps its place, and the idea
of Xu et al. 2019 (AAAE) of learning the distribution of codes afterwards, done as a rectified flow
(Liu et al. 2022).

1. *autoencode*: encoder and decoder minimise absolute error of the image and of its differences,
   cross-entropy of the masks, and a weak KL.
2. *sharpen*: the encoder rests; the decoder plays against a spectral-norm patch discriminator
   (hinge), whose features are the learned distance.
3. *prior*: encoder and decoder rest; a flow, or another prior, learns the codes.

Healthy: ``image`` and ``mask`` fall in phase 1 and stay in phase 2, where ``texture`` falls and
``real`` and ``fake`` stay between 0.5 and 1; ``velocity`` falls from about 2 towards 1 or below.
``real`` and ``fake`` near 0: the discriminator has won and the decoder invents texture.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.errors import ConfigError
from medaug.models.autoencoder import Encoding
from medaug.models.base import Batch, Move, OptimizerSettings, Shape, Turn
from medaug.models.losses import (
    absolute_error,
    gaussian_kl,
    gradient_error,
    hinge_fake,
    hinge_real,
    level_error,
    mask_error,
    per_sample,
    reparametrise,
)
from medaug.models.networks.blocks import repeated
from medaug.models.networks.build import WithoutMasks
from medaug.models.networks.spatial import (
    PatchDiscriminator,
    SpatialDecoder,
    SpatialEncoder,
    squash,
)
from medaug.models.priors import PriorOptions, make_prior
from medaug.runtime import collectives

RAREST = 1e-3
"""Share of a layout below which a part counts no more."""

FLOW = PriorOptions("flow", width=128, batches=2)


class SpatialVAEGAN(Encoding):
    """A VAE/GAN whose code is a grid, with a prior learned afterwards.

    Args:
        shape: channels, size and conditions of the data.
        code_channels: channels of the code.
        code_stride: pixels a code covers along a side; 0 chooses 8 from 128 pixels on, else 4, and
            twice that where a layout tells the places.
        width: channels of the autoencoder's first level.
        phases: shares of the images at which sharpening and the prior begin; None chooses 0.4 and
            0.65, and with a layout, which leaves the prior less to learn, 0.55 and 0.8. A prior
            without turns leaves its part to sharpening.
        prior: how codes are distributed and drawn; ``phases`` say when it learns.
        mask_weight: weight of the mask's cross-entropy beside the image's absolute error.
        kl_weight: weight of the KL per code dimension; None chooses 1e-3, and twice that with a
            layout.
        level_weight: weight of the distance of the intensities in each part of a layout.
        adversarial: weight of the patch logits in the decoder's move.
        texture: weight of the distance in discriminator features.
        lr: Adam's rate of autoencoder and prior.
        sharpen_lr: Adam's rate of the decoder in phase 2; the discriminator's is twice that.
        dropout: share of the decoder's deepest channels dropped in training, for samples that
            show the network's own uncertainty.
    """

    def __init__(
        self,
        shape: Shape,
        code_channels: int = 4,
        code_stride: int = 0,
        width: int = 24,
        phases: tuple[float, float] | None = None,
        prior: PriorOptions = FLOW,
        mask_weight: float = 3.0,
        kl_weight: float | None = None,
        level_weight: float = 1.0,
        adversarial: float = 0.1,
        texture: float = 0.5,
        lr: float = 1e-3,
        sharpen_lr: float = 2e-4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        stride = code_stride or (8 if shape.size >= 128 else 4) * (2 if shape.layout else 1)
        if shape.size % stride or stride not in (2, 4, 8, 16):
            raise ConfigError(
                f"config model.code_stride: {stride} must be 2, 4, 8 or 16 and divide the image "
                f"size, which is {shape.size}"
            )
        if phases is None:
            phases = (0.55, 0.8) if shape.layout else (0.4, 0.65)
        if kl_weight is None:
            kl_weight = 2e-3 if shape.layout else 1e-3
        if not 0 <= phases[0] <= phases[1] <= 1:
            raise ConfigError(
                f"config model.phases: two ascending shares in [0, 1], got {list(phases)}"
            )
        if prior.share is not None:
            raise ConfigError(
                f"config model.prior.share: {prior.share:g} is not accepted; set model.phases, "
                "whose second number says when the prior begins to learn"
            )
        grid = shape.size // stride
        sizes = (code_channels, width, stride, shape.cond_dim)
        encoder = SpatialEncoder(shape.encoded, *sizes)
        self.encoder = WithoutMasks(encoder, shape.images) if shape.unlabeled else encoder
        self.decoder = SpatialDecoder(shape.channels, *sizes, shape.layout > 0, dropout)
        self.discriminator = PatchDiscriminator(shape.channels, width, shape.cond_dim)
        self.code = make_prior(prior, (code_channels, grid, grid), shape)
        self.noise_shape = self.code.noise_shape
        self.posterior = prior.name in ("gaussian", "gmm")
        self.uncertainty = self.code.redraws(self.posterior)
        self.shape = shape
        self.phases = tuple(phases) if self.code.learns else (phases[0], 1.0)
        self.mask_weight, self.kl_weight, self.level_weight = mask_weight, kl_weight, level_weight
        self.adversarial, self.texture = adversarial, texture
        self.lr, self.sharpen_lr = lr, sharpen_lr

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "encoder": (self.encoder,),
            "decoder": (self.decoder,),
            "discriminator": (self.discriminator,),
            **self.code.players(),
        }

    def turns(self, progress: float) -> Sequence[Turn]:
        if progress < self.phases[0]:
            return [Turn(self.autoencode)]
        if progress < self.phases[1]:
            return [Turn(self.sharpen)]
        return self.code.turns(self.codes)

    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        bounds = (0.0, *self.phases, 1.0)
        phase = sum(progress >= bound for bound in self.phases)
        start, end = bounds[phase], bounds[phase + 1]
        within = (progress - start) / max(end - start, 1e-9)
        pace = min(1.0, (within + 1e-3) / 0.03) * max(1 - within, 0.0) ** 0.5
        if phase == 1:
            decoder = OptimizerSettings(self.sharpen_lr * pace, betas=(0.0, 0.99))
        else:
            decoder = OptimizerSettings(self.lr * pace, weight_decay=0.01)
        return {
            "encoder": OptimizerSettings(self.lr * pace, weight_decay=0.01),
            "decoder": decoder,
            "discriminator": OptimizerSettings(2 * self.sharpen_lr * pace, betas=(0.0, 0.99)),
            **self.code.optim(self.lr * pace),
        }

    def autoencode(self, batch: Batch) -> dict[str, Move]:
        mu, logvar = self.encoder(batch.x, batch.cond)
        raw = self.decoder(reparametrise(mu, logvar), batch.cond)
        terms = self.likeness(raw, batch, 1.0)
        images = self.shape.images
        if images:
            edges = gradient_error(raw[:, :images].tanh(), batch.x[:, :images])
            terms["edges"] = (0.5, edges)
        move = Move({**terms, "kl": (self.kl_weight, gaussian_kl(mu, logvar))})
        return {"encoder": move, "decoder": move}

    def sharpen(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        with torch.no_grad():  # the encoder rests
            mu, logvar = self.encoder(x, cond)
        raw = self.decoder(reparametrise(mu, logvar), cond)
        x_hat = batch.seen(squash(raw, self.shape.images).to(x.dtype))
        both = repeated(cond, 2)
        logits, features = self.discriminator(torch.cat([x, x_hat]), both)
        on_real, on_fake = logits.chunk(2)
        pairs = [f.chunk(2) for f in features]
        texture = torch.stack([absolute_error(fake, real.detach()) for real, fake in pairs]).sum(0)
        decoder = Move(
            {
                **self.likeness(raw, batch, 0.5),
                "adversarial": (self.adversarial, -per_sample(on_fake)),
                "texture": (self.texture, texture),
            }
        )
        discriminator = Move(
            {"real": (1.0, hinge_real(on_real)), "fake": (1.0, hinge_fake(on_fake))}
        )
        return {"decoder": decoder, "discriminator": discriminator}

    def likeness(self, raw: Tensor, batch: Batch, weight: float) -> dict[str, tuple[float, Tensor]]:
        """Absolute error of the image and cross-entropy of its masks, where there are such.

        Of an image drawn for a layout also the distance of the intensities in each part, which a
        blur would draw towards those around it.
        """
        images, x = self.shape.images, batch.x
        terms = {}
        if images:
            drawn, real = raw[:, :images].tanh(), x[:, :images]
            if self.shape.layout and batch.cond is not None:
                layout = batch.cond[:, -self.shape.layout :]
                terms["levels"] = (weight * self.level_weight, level_error(drawn, real, layout))
                share = rarity(layout)
                drawn, real = drawn * share, real * share
            terms["image"] = (weight, absolute_error(drawn, real))
        if self.shape.channels > images:
            error = mask_error(raw[:, images:], x[:, images:])
            terms["mask"] = (weight * self.mask_weight, self.labeled(error, batch))
        return terms

    def labeled(self, error: Tensor, batch: Batch) -> Tensor:
        """``error`` (b,) of the samples whose masks are known, so weighted that its mean is theirs.

        Without one in the batch it is 0.
        """
        if batch.known is None:
            return error
        known = batch.known[:, self.shape.images].flatten()
        whole = collectives.global_count(len(known))
        total = collectives.all_mean(known.sum()) * (whole / len(known))
        return error * known * (whole / total.clamp_min(1))

    def encode(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (b, code, grid, grid)."""
        return self.encoder(x, cond)

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return squash(self.decoder(z, cond).float(), self.shape.images)


def rarity(layout: Tensor) -> Tensor:
    """What a pixel counts, (b, 1, h, w), 1 on average: more where its part of a layout is rare.

    By the inverse root of the part's share of the batch, so that small organs are learned.
    """
    planes = layout.float()
    scarce = (collectives.all_mean(planes.mean((0, 2, 3))) + RAREST).rsqrt()
    weights = torch.einsum("bkhw,k->bhw", planes, scarce)[:, None].clamp_min(1)
    return weights / collectives.all_mean(weights.mean())
