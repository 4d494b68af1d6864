"""The distribution of an autoencoder's codes, as a component any of them can take.

- ``gaussian``: N(0, I), which the autoencoder's own losses must bring about.
- ``gmm``: a mixture of Gaussians fitted to the codes of training images once they are learned
  (ex-post density, Ghosh et al. 2020).
- ``adversarial``: a generator of codes against a critic of codes (Xu et al. 2019, AAAE).
- ``flow``: a rectified flow from noise to codes (Liu et al. 2022).

The last two learn in turns of their own, on whitened codes, while encoder and decoder rest.
"""

import difflib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.losses import gradient_penalty, half_squared_error
from medaug.models.networks.blocks import joined, numbers
from medaug.models.networks.flow import Velocity, integrate
from medaug.models.networks.latent import Mlp, VelocityMlp
from medaug.runtime import collectives

Codes = Callable[[Batch], Tensor]
"""The codes (b, ...) of a batch's images, without gradient and without changing the encoder."""

CRITIC_TURNS = 5
LARGEST_MIXTURE = 512


@dataclass(frozen=True)
class PriorOptions:
    """How codes are distributed and drawn: ``model.prior`` of a config.

    Attributes:
        name: ``gaussian``, ``gmm``, ``adversarial`` or ``flow``.
        share: share of the images, at the end of a run, in which a prior that learns does so; None
            for 0.25.  ``spatial_vaegan`` has ``phases`` instead and takes none.
        width: channels of the networks of a prior that learns.
        steps: Heun steps of a flow from noise to a code.
        batches: batches that one step of a flow on a grid of codes takes at once.
    """

    name: str = "gaussian"
    share: float | None = None
    width: int = 512
    steps: int = 24
    batches: int = 1


GAUSSIAN = PriorOptions()
ADVERSARIAL = PriorOptions("adversarial")


class Prior(nn.Module):
    """Noise to codes; subclasses say how that is learned."""

    noise_shape: tuple[int, ...]
    learns = False
    """Whether there are turns to play."""
    fits = False
    """Whether ``fit`` does anything."""

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {}

    def turns(self, codes: Codes) -> Sequence[Turn]:
        return []

    def optim(self, lr: float) -> dict[str, OptimizerSettings]:
        return {}

    def fit(self, codes: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Fit to all of ``codes``, batches of (codes, cond)."""

    @abstractmethod
    def forward(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        """Noise (b, *noise_shape) to codes."""

    def redraws(self, posterior: bool) -> str:
        """What ``vary`` draws, in words, with or without a posterior to draw from."""
        return (
            "a draw of q(z | x)" if posterior else "a neighbour of the noise on the prior's shell"
        )

    def vary(
        self,
        noise: Tensor,
        z: Tensor,
        fresh: Tensor,
        cond: Tensor | None,
        how: float,
        posterior: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Codes near ``z``, itself made of ``noise``, with a strength ``how`` in (0, 1].

        With a ``posterior`` (mean, log-variance) of the sample a draw of it, its deviation scaled
        by 2 ``how``, so that 0.5 is the posterior; else from a neighbour of the noise.
        """
        if posterior is None:
            return self((1 - how**2) ** 0.5 * noise + how * fresh, cond)
        mu, logvar = posterior
        draw = fresh.flatten(1)[:, : mu[0].numel()].view_as(mu)
        return mu + 2 * how * (0.5 * logvar).exp() * draw

    def near_posterior(
        self, mu: Tensor, logvar: Tensor | None, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        """Codes near those of real images, with a strength ``how`` in (0, 1].

        A draw of the posterior, its deviation scaled by 2 ``how``; where the encoder gives but a
        point, a neighbour of it on the shell of N(0, I).

        Args:
            mu: mean of q(z | x), (b, ...).
            logvar: its log-variance, or None where the encoder has none.
            fresh: standard normal noise of the shape of ``mu``.
            cond: the images' condition.
            how: strength; at 0.5 a draw of the posterior itself.
        """
        if logvar is None:
            return (1 - how**2) ** 0.5 * mu + how * fresh
        return mu + 2 * how * (0.5 * logvar).exp() * fresh


class GaussianPrior(Prior):
    """N(0, I): the noise is the code."""

    def __init__(self, code: tuple[int, ...]) -> None:
        super().__init__()
        self.noise_shape = code

    def forward(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return noise


class MixturePrior(Prior):
    """Ten Gaussians of full covariance, for each class of its own where there are classes.

    The last number of the noise chooses the component, by its normal quantile.  A layout plays no
    part: the codes beside it are taken to be independent of it.
    """

    fits = True
    components = 10
    seed = 0
    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, code: tuple[int, ...], shape: Shape) -> None:
        super().__init__()
        dim = math.prod(code)
        if dim > LARGEST_MIXTURE:
            raise ConfigError(
                f"config model.prior: gmm takes codes of up to {LARGEST_MIXTURE} numbers, this "
                f"one has {dim}; use flow or adversarial"
            )
        if shape.cond_dim != shape.classes + shape.layout:
            raise ConfigError(
                "config model.prior: gmm is conditioned on classes alone; "
                "use flow or adversarial with attributes or height"
            )
        self.code, self.noise_shape = code, (dim + 1,)
        self.classes = shape.classes
        groups, k = max(shape.classes, 1), self.components
        self.register_buffer("weights", torch.full((groups, k), 1 / k))
        self.register_buffer("means", torch.zeros(groups, k, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(groups, k, 1, 1))

    def fit(self, codes: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        from sklearn.mixture import GaussianMixture

        rows, groups = [], []
        for code, cond in codes:
            rows.append(code.flatten(1).double().cpu().numpy())
            groups.append(self.group(code, cond).cpu().numpy())
        every, group = np.concatenate(rows), np.concatenate(groups)
        for number in range(len(self.weights)):
            mine = every[group == number]
            if len(mine) < 2:
                continue
            k = min(self.components, max(1, len(mine) // (2 * every.shape[1])))
            fitted = GaussianMixture(k, reg_covar=1e-5, random_state=self.seed).fit(mine)
            self.weights[number].zero_()
            self.weights[number, :k] = torch.from_numpy(fitted.weights_)
            self.means[number, :k] = torch.from_numpy(fitted.means_)
            factors = np.linalg.cholesky(fitted.covariances_)
            self.factors[number, :k] = torch.from_numpy(factors)

    def group(self, rows: Tensor, cond: Tensor | None) -> Tensor:
        """Which mixture is that of each row, (b,)."""
        if cond is None or not self.classes:
            return torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        return numbers(cond)[:, : self.classes].argmax(1)

    def forward(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        noise = noise.float()
        group = self.group(noise, cond)
        level = torch.special.ndtr(noise[:, -1:])
        last = (self.weights[group] > 0).sum(1) - 1
        choice = (self.weights[group].cumsum(1) < level).sum(1).minimum(last)
        at = self.factors[group, choice] @ noise[:, :-1, None]
        return (self.means[group, choice] + at[..., 0]).unflatten(1, self.code)


class Whitened(Prior):
    """A learned prior works on codes of mean 0 and variance 1 per channel.

    The moments are running averages that forget after about ``MEMORY`` codes.
    """

    MEMORY = 2**16
    learns = True
    seen: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, code: tuple[int, ...]) -> None:
        super().__init__()
        channel = (1, code[0], *[1] * (len(code) - 1))
        for name, start in (("seen", 0.0), ("mean", 0.0), ("square", 1.0)):
            self.register_buffer(name, torch.full(channel, start))
        self.code = code

    @torch.no_grad()
    def observe(self, code: Tensor) -> Tensor:
        """Fold codes (b, ...) into the moments and return them whitened."""
        count = collectives.global_count(len(code))
        self.seen += count
        share = count / self.seen.clamp(max=self.MEMORY)
        others = [0, *range(2, code.ndim)]
        self.mean += share * (collectives.all_mean(code.mean(others, keepdim=True)) - self.mean)
        square = collectives.all_mean(code.square().mean(others, keepdim=True))
        self.square += share * (square - self.square)
        return self.whiten(code)

    def std(self) -> Tensor:
        return (self.square - self.mean.square()).clamp_min(1e-6).sqrt()

    def whiten(self, code: Tensor) -> Tensor:
        return (code.float() - self.mean) / self.std()

    def unwhiten(self, white: Tensor) -> Tensor:
        return self.mean + self.std() * white

    def near_posterior(
        self, mu: Tensor, logvar: Tensor | None, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        if logvar is not None:
            return super().near_posterior(mu, logvar, fresh, cond, how)
        near = (1 - how**2) ** 0.5 * self.whiten(mu) + how * fresh
        return self.unwhiten(near)


class AdversarialPrior(Whitened):
    """A code generator against a code critic with a gradient penalty (AAAE, Eq. 8 to 10)."""

    noise_dim = 64

    def __init__(
        self, code: tuple[int, ...], shape: Shape, width: int, critic_turns: int = CRITIC_TURNS
    ) -> None:
        super().__init__(code)
        dim, k = math.prod(code), shape.cond_dim
        self.noise_shape = (self.noise_dim,)
        self.generator = Mlp((self.noise_dim + k, *[width] * 3, dim), 0.0, elu=True)
        self.critic = Mlp((dim + k, *[width] * 3, 1), 0.1)
        self.critic_turns = critic_turns

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"code_critic": (self.critic,), "code_generator": (self.generator,)}

    def turns(self, codes: Codes) -> Sequence[Turn]:
        def train_critic(batch: Batch) -> dict[str, Move]:
            return self.critic_loss(batch, codes)

        return self.critic_turns * [Turn(train_critic)] + [Turn(self.train_code_generator)]

    def optim(self, lr: float) -> dict[str, OptimizerSettings]:
        return dict.fromkeys(self.players(), OptimizerSettings(lr, betas=(0.5, 0.9)))

    def critic_loss(self, batch: Batch, codes: Codes) -> dict[str, Move]:
        cond = batch.cond
        with torch.no_grad():
            white = self.observe(codes(batch)).flatten(1)
            drawn = self.draw(batch)
        terms = {
            "real": (1.0, -self.score(white, cond)),
            "fake": (1.0, self.score(drawn, cond)),
            "penalty": (10.0, gradient_penalty(lambda u: self.score(u, cond), white, drawn)),
        }
        return {"code_critic": Move(terms)}

    def train_code_generator(self, batch: Batch) -> dict[str, Move]:
        adversarial = -self.score(self.draw(batch), batch.cond)
        return {"code_generator": Move({"adversarial": (1.0, adversarial)})}

    def draw(self, batch: Batch) -> Tensor:
        """Whitened codes (b, d) from fresh noise."""
        noise = torch.randn(len(batch.x), self.noise_dim, device=batch.x.device)
        return self.generator(joined(noise, batch.cond)).float()

    def score(self, white: Tensor, cond: Tensor | None) -> Tensor:
        return self.critic(joined(white, cond))[:, 0].float()

    def forward(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        white = self.generator(joined(noise, cond)).float()
        return self.unwhiten(white.unflatten(1, self.code))


class FlowPrior(Whitened):
    """A rectified flow, on a vector by a perceptron or on a grid by a convolutional network."""

    def __init__(
        self, code: tuple[int, ...], shape: Shape, width: int, steps: int, batches: int = 1
    ) -> None:
        super().__init__(code)
        self.noise_shape, self.steps, self.batches = code, steps, batches
        self.velocity: nn.Module
        if len(code) == 1:
            self.velocity = VelocityMlp(code[0], width, shape.cond_dim)
        else:
            channels, grid, _ = code
            patch = 2 if grid >= 16 and grid % 2 == 0 else 1
            self.velocity = Velocity(channels, grid, patch, width, shape.cond_dim, shape.layout > 0)

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"flow": (self.velocity,)}

    def turns(self, codes: Codes) -> Sequence[Turn]:
        def fit_flow(batch: Batch) -> dict[str, Move]:
            return self.fit_velocity(batch, codes)

        return [Turn(fit_flow, self.batches)]

    def optim(self, lr: float) -> dict[str, OptimizerSettings]:
        return {"flow": OptimizerSettings(lr, weight_decay=0.01, max_norm=1.0)}

    def fit_velocity(self, batch: Batch, codes: Codes) -> dict[str, Move]:
        with torch.no_grad():
            white = self.observe(codes(batch))
            noise = torch.randn_like(white)
            t = torch.randn(len(white), device=white.device).sigmoid()
            share = t.view(-1, *[1] * (white.ndim - 1))
            z_t = (1 - share) * noise + share * white
        velocity = self.velocity(z_t, t, batch.cond)
        return {"flow": Move({"velocity": (2.0, half_squared_error(velocity, white - noise))})}

    def carry(self, white: Tensor, cond: Tensor | None, start: float, steps: int) -> Tensor:
        return integrate(lambda z, t: self.velocity(z, t, cond), white, start, steps)

    def forward(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return self.unwhiten(self.carry(noise, cond, 0.0, self.steps))

    def redraws(self, posterior: bool) -> str:
        return "the code partly redrawn by the flow"

    def vary(
        self,
        noise: Tensor,
        z: Tensor,
        fresh: Tensor,
        cond: Tensor | None,
        how: float,
        posterior: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """The code with a share ``how`` of the way back to noise drawn anew."""
        z_t = (1 - how) * self.whiten(z) + how * fresh
        steps = max(2, round(self.steps * how))
        return self.unwhiten(self.carry(z_t, cond, 1 - how, steps))

    def near_posterior(
        self, mu: Tensor, logvar: Tensor | None, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        return self.vary(fresh, mu, fresh, cond, how, None)


PRIORS = ("gaussian", "gmm", "adversarial", "flow")


def make_prior(options: PriorOptions, code: tuple[int, ...], shape: Shape) -> Prior:
    """The prior that ``options`` name.

    Args:
        options: which prior, and its size.
        code: shape of one code, (d,) or (channels, grid, grid).
        shape: channels, size and conditions of the data.

    Raises:
        ConfigError: no such prior, or it cannot take this code or condition.
    """
    match options.name:
        case "gaussian":
            return GaussianPrior(code)
        case "gmm":
            return MixturePrior(code, shape)
        case "adversarial":
            return AdversarialPrior(code, shape, options.width)
        case "flow":
            return FlowPrior(code, shape, options.width, options.steps, options.batches)
    near = difflib.get_close_matches(options.name, PRIORS, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"config model.prior: {options.name!r} is not known{hint} (known: {', '.join(PRIORS)})"
    )
