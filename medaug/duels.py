"""Two-sided adversarial losses: what a judge minimises, and what whoever it judges minimises.

All are written on logits that are large for real images, and return one value a sample.  The
relativistic pair compares a fake with the real image at its side; the others look at one image.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from medaug.errors import ConfigError
from medaug.losses import fake_loss, hinge_fake, hinge_real, per_sample, real_loss


@dataclass(frozen=True)
class Duel:
    """One adversarial loss.

    Attributes:
        judge: logits on real and on fake images to the judge's named terms.
        escape: logits on fakes, and on real images where ``paired``, to the other side's values.
        paired: whether ``escape`` looks at the real images.
    """

    judge: Callable[[Tensor, Tensor], dict[str, Tensor]]
    escape: Callable[[Tensor, Tensor | None], Tensor]
    paired: bool = False


def _apart(real: Callable[[Tensor], Tensor], fake: Callable[[Tensor], Tensor]) -> Callable:
    return lambda on_real, on_fake: {"real": real(on_real), "fake": fake(on_fake)}


def _margin(higher: Tensor, lower: Tensor | None) -> Tensor:
    assert lower is not None
    return per_sample(F.softplus((lower - higher).float()))


DUELS = {
    "logistic": Duel(_apart(real_loss, fake_loss), lambda fake, real: real_loss(fake)),
    "saturating": Duel(_apart(real_loss, fake_loss), lambda fake, real: -fake_loss(fake)),
    "hinge": Duel(_apart(hinge_real, hinge_fake), lambda fake, real: -per_sample(fake)),
    "wasserstein": Duel(
        _apart(lambda on_real: -per_sample(on_real), per_sample),
        lambda fake, real: -per_sample(fake),
    ),
    "relativistic": Duel(
        lambda on_real, on_fake: {"margin": _margin(on_real, on_fake)},
        _margin,
        paired=True,
    ),
}
"""Goodfellow et al. 2014 (logistic: the non-saturating form), Lim and Ye 2017, Arjovsky et al.
2017, Jolicoeur-Martineau 2019 in the paired form of Huang et al. 2024 (R3GAN)."""


def duel(name: str) -> Duel:
    """The adversarial loss called ``name``.

    Raises:
        ConfigError: no such loss.
    """
    if name not in DUELS:
        raise ConfigError(f"config model.duel: {name!r} is not known (known: {', '.join(DUELS)})")
    return DUELS[name]
