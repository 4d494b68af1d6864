"""How a block of samples is drawn: the cases themselves, drawn anew where refused, and the spread.

A block of consecutive indices is always drawn whole, so what becomes of one sample depends on the
weights, the seed and its index alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medaug.core.errors import ConfigError, RefusedError
from medaug.core.seeds import derive
from medaug.synthesis.masks.deformed import NUDGE, deform
from medaug.synthesis.trained import Trained

SOURCES = ("latent", "network", "mask")
STRENGTH = 0.5
MOST_ATTEMPTS = 64

Judge = Callable[[npt.NDArray[Any], npt.NDArray[Any] | None], Sequence[str]]
"""Images (n, y, x) and label maps to a reason for refusal each, empty where there is none."""


@dataclass
class Drawing:
    """One block while it is drawn, a row a sample.

    Attributes:
        noise: (n, *noise_shape).
        maps: layout maps (n, h, w), or None.
        cond: what the model is told, or None.
        z: codes.
        x: what was decoded.
        image: in stored units (n, y, x).
        label: label maps (n, y, x), or None.
        refused: for each sample, why its earlier draws were refused.
    """

    noise: Tensor
    maps: Tensor | None
    cond: Tensor | None
    z: Tensor
    x: Tensor
    image: npt.NDArray[Any]
    label: npt.NDArray[Any] | None
    refused: list[list[str]] = field(default_factory=list)


def draw(
    generator: Trained,
    seed: int,
    indices: Sequence[int],
    told: Sequence[Mapping[str, float]],
    judge: Judge | None,
) -> Drawing:
    """The cases of a block; those that ``judge`` refuses are drawn anew, by (seed, i, attempt).

    Raises:
        RefusedError: a sample is refused time and again.
    """
    whole = _attempt(generator, seed, indices, told, 0)
    whole.refused = [[] for _ in indices]
    if judge is None:
        return whole
    pending = list(range(len(indices)))
    for attempt in range(1, MOST_ATTEMPTS + 1):
        label = None if whole.label is None else whole.label[pending]
        reasons = judge(whole.image[pending], label)
        for place, reason in zip(pending, reasons, strict=True):
            if reason:
                whole.refused[place].append(reason)
        pending = [place for place, reason in zip(pending, reasons, strict=True) if reason]
        if not pending:
            return whole
        again = _attempt(
            generator, seed, [indices[p] for p in pending], [told[p] for p in pending], attempt
        )
        for name in ("noise", "maps", "cond", "z", "x", "image", "label"):
            old, new = getattr(whole, name), getattr(again, name)
            if old is not None:
                old[pending] = new
    reasons = [reason for place in pending for reason in whole.refused[place]]
    raise refusal(indices[pending[0]], reasons)


def refusal(index: int, reasons: Sequence[str]) -> RefusedError:
    """What to raise where sample ``index`` was drawn too often."""
    return RefusedError(
        f"sample {index} was refused {MOST_ATTEMPTS} times, mostly for "
        f"{Counter(reasons).most_common(1)[0][0]!r}; train longer, loosen that check (--set "
        "filter.KEY=VALUE), or see what it refuses with --no-filter",
        list(reasons),
    )


def _attempt(
    generator: Trained,
    seed: int,
    indices: Sequence[int],
    told: Sequence[Mapping[str, float]],
    attempt: int,
) -> Drawing:
    noise = generator.noise(seed, indices, f"code {attempt}" if attempt else "code")
    maps = generator.layout_maps(seed, indices, attempt)
    cond = generator.rows(told, maps)
    z = generator.prior(noise, cond)
    x = generator.model.decode(z, cond)
    image, label = generator.stored(x, maps)
    return Drawing(noise, maps, cond, z.clone(), x.clone(), image, label)


def alternatives(
    generator: Trained,
    seed: int,
    indices: Sequence[int],
    told: Sequence[Mapping[str, float]],
    block: Drawing,
    count: int,
    source: str,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """``count`` further draws that share what defines each case, by their source.

    Returns:
        Images (n, count, y, x) and label maps, or None where there are none.
    """
    drawn = []
    for k in range(count):
        if source == "latent":
            fresh = generator.noise(seed, indices, f"alternative {k}")
            drawn.append(latent(generator, block, fresh))
        elif source == "network":
            drawn.append(network(generator, seed, indices, block, k))
        else:
            drawn.append(nudged(generator, seed, indices, told, block, k))
    empty = block.image[:, None][:, :0]
    none = None if block.label is None else block.label[:, None][:, :0]
    images = np.stack([image for image, _ in drawn], 1) if drawn else empty
    labels = [label for _, label in drawn if label is not None]
    return images, np.stack(labels, 1) if labels else none


Pair = tuple[npt.NDArray[Any], npt.NDArray[Any] | None]


def latent(generator: Trained, block: Drawing, fresh: Tensor) -> Pair:
    """Another code: near the sample's own, or, where the mask is given, any."""
    if block.maps is not None:
        z = generator.prior(fresh, block.cond)
    else:
        z = generator.near(block.noise, block.z, block.x, fresh, block.cond, STRENGTH)
    return generator.stored(generator.model.decode(z, block.cond), block.maps)


def network(generator: Trained, seed: int, indices: Sequence[int], block: Drawing, k: int) -> Pair:
    """The same noise through another network: an earlier snapshot, or other units dropped."""
    if generator.snapshots:
        model = generator.snapshots[k % len(generator.snapshots)]
        with generator.casting():
            z = model.prior(block.noise, block.cond).float()
        return generator.stored(model.decode(z, block.cond), block.maps)
    with generator.dropping(derive(seed, "dropout", indices[0], k)):
        x = generator.model.decode(block.z, block.cond)
    return generator.stored(x, block.maps)


def nudged(
    generator: Trained,
    seed: int,
    indices: Sequence[int],
    told: Sequence[Mapping[str, float]],
    block: Drawing,
    k: int,
) -> Pair:
    """The same noise for a mask a little deformed."""
    assert block.maps is not None
    maps = deform(block.maps, seed, indices, f"alternative {k}", NUDGE)
    cond = generator.rows(told, maps)
    z = generator.prior(block.noise, cond)
    return generator.stored(generator.model.decode(z, cond), maps)


def check_source(generator: Trained, source: str, count: int) -> None:
    """Refuse a source of uncertainty that a run does not have.

    Raises:
        ConfigError: naming what would make it available.
    """
    if source not in SOURCES:
        raise ConfigError(f"uncertainty source {source!r} is not known ({', '.join(SOURCES)})")
    if not count:
        return
    if source == "mask" and generator.masks != "layout":
        raise ConfigError(
            f"uncertainty source mask needs a run that is given its masks (data.masks layout), "
            f"this one has data.masks {generator.masks}"
        )
    if source == "network" and not (len(generator.snapshots) > 1 or generator.drops):
        raise ConfigError(
            "uncertainty source network needs several snapshots (train.keep_snapshots) or a "
            "decoder trained with dropout (model.dropout); this run has neither"
        )
