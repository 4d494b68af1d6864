"""A synthetic slice held against the real ones: kept, or refused by the first check it fails."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medaug.core.codec import CTCodec
from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError, DataError
from medaug.core.modality import modality_of
from medaug.data.cache.prepare import SliceCache
from medaug.runtime.files import explaining, locked
from medaug.synthesis.filter.measures import Figures, distance, measure, overlap
from medaug.synthesis.filter.reference import (
    Reference,
    build,
    build_settings,
    by_size,
    fitted,
    read,
    recipe,
    write,
)
from medaug.synthesis.filter.settings import FilterConfig

REASONS = {
    "empty": "fewer labelled pixels than any real training slice has",
    "noise": "noise unlike that of real slices",
    "outside_body": "the mask leaves the body",
    "hu": "HU in a mask, around it or at the ends of the scale unlike those of real slices",
    "area": "a mask smaller or larger than real ones",
    "components": "a mask in more parts than real ones",
    "disagreement": "a segmenter trained on real slices finds another mask",
    "copy": "closer to a real training slice than real slices are to each other",
}
"""Why a slice is refused, in the order in which it is checked."""

FILE = "filter.safetensors"

SAME_HU = 0.5
"""What is nearer than this is a copy even where real slices are as near; storage rounds to 0.1."""

Image = npt.NDArray[np.float32]
Label = npt.NDArray[np.uint8]


class Filter:
    """Judges synthetic slices by what is known of real ones.

    Args:
        reference: the real training slices, measured.
        config: the thresholds.
        device: where the segmenters compute.

    Attributes:
        size: pixels a side of the slices it judges.
        labels: name to id of the labels it knows.
        modality: of the slices; settings and constants in HU weigh ``per_hu`` of its unit.
        allows_empty: whether a slice without any labelled pixel is kept.
        fingerprint: sha256 of the reference and the thresholds.
    """

    def __init__(self, reference: Reference, config: FilterConfig) -> None:
        self.reference, self.config = reference, config
        self.codec: CTCodec = reference.codec
        self.labels = dict(reference.codec.labels)
        self.ids = list(self.labels.values())
        self.size = reference.size
        self.modality = modality_of(reference.codec.modality)
        settings = json.dumps(config.model_dump(mode="json"), sort_keys=True)
        self.fingerprint = hashlib.sha256((reference.checksum + settings).encode()).hexdigest()
        self._calibrate()

    def _calibrate(self) -> None:
        """Turn the figures of the real slices into bounds."""
        config, columns = self.config, self.reference.columns
        group, pixels = columns["group"], columns["pixels"]
        sizes, total = pixels.sum(1), max(len(self.ids), 1)
        tail = config.tail / total
        body = columns["body_share"]
        there = np.isfinite(body)
        self.noise = fitted(columns["noise"], group, config.tail)
        self.body_share = fitted(body[there], group[there], config.tail)[0]
        self.allows_empty = config.empty == "allow" or (
            config.empty == "auto" and float((sizes == 0).mean()) > config.empty_share
        )
        self.levels = [fitted(v, group, config.tail / 2) for v in columns["hu_levels"].T]
        self.hu, self.contrast, self.spread = (
            [by_size(v, n, group, tail) for v, n in zip(columns[name].T, pixels.T, strict=True)]
            for name in ("hu_median", "hu_contrast", "hu_spread")
        )
        self.area, self.components = [], []
        for k in range(len(self.ids)):
            mine = pixels[:, k]
            shown = mine > 0
            self.area.append(fitted(mine[shown], group[shown], tail))
            parts = columns["components"][shown, k]
            self.components.append(by_size(parts, mine[shown], group[shown], tail))
        # the agreement of each slice is that of a segmenter which has not seen its patient, so
        # the quantile needs no widening: all slices count as one group
        one = np.zeros_like(group)
        self.agreement = [
            by_size(values, size, one, config.agreement_tail / (total + 1), self.reference.least)
            for values, size in zip(
                columns["agreement"].T, [*pixels.T, sizes], strict=True
            )
        ]  # fmt: skip
        nearest = columns["nearest"]
        self.nearest = float(np.quantile(nearest, config.tail)) if len(nearest) else 0.0

    def judge(self, image: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> list[str]:
        """Why each slice is refused, one of ``REASONS``, or "" where it is kept.

        Each slice is judged on its own: the answer does not depend on the others.

        Args:
            image: HU (n, y, x); clipped to the window here.  Or stacks (n, z, y, x), each of which
                is one case: it is a ``copy`` where one of its slices is, and refused for what most
                of its slices fail where more than ``stack_share`` of them fail something.
            label: label ids of the same shape; None where no masks are drawn.

        Raises:
            DataError: another size or shape than the training slices, or an unknown label id.
        """
        if np.ndim(image) == 4:
            labels = [None] * len(image) if label is None else label
            return [self._of_stack(*stack) for stack in zip(image, labels, strict=True)]
        image, label = self._checked(image, label)
        low, high = self.codec.window_hu
        clipped = image.clip(low, high).astype(np.float32)
        pairs = zip(clipped, label, strict=True)
        return [next(self._failed(*pair), "") for pair in pairs]

    def _of_stack(self, image: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> str:
        reasons = [reason for reason in self.judge(image, label) if reason]
        if "copy" in reasons:
            return "copy"
        if len(reasons) <= self.config.stack_share * len(image):
            return ""
        return max(REASONS, key=reasons.count)

    def _checked(
        self, image: npt.NDArray[Any], label: npt.NDArray[Any] | None
    ) -> tuple[npt.NDArray[Any], Label]:
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[1:] != (self.size, self.size):
            raise DataError(
                f"images of shape {image.shape}; this filter takes (n, {self.size}, {self.size})"
            )
        if not np.isfinite(image).all():
            raise DataError("images hold values that are not finite; this filter takes HU")
        if label is None:
            if self.ids:
                raise DataError(
                    f"no label maps; this filter takes them of {', '.join(self.labels)}"
                )
            return image, np.zeros(image.shape, np.uint8)
        label = np.asarray(label)
        if label.shape != image.shape:
            raise DataError(f"label maps of shape {label.shape} for images of {image.shape}")
        if strange := sorted(set(np.unique(label).tolist()) - {0, *self.ids}):
            known = ", ".join(f"{n} {name}" for name, n in self.labels.items()) or "none"
            raise DataError(f"label id {strange[0]} is not known (known: 0 background, {known})")
        return image, label.astype(np.uint8)

    def _failed(self, image: Image, label: Label) -> Iterator[str]:
        """The checks that a slice fails, in the order of ``REASONS``, the cheap ones first."""
        config = self.config
        low, least = self.codec.window_hu[0], self.reference.least
        seen = measure(image, label, self.ids, least, low, self.modality)
        if self._is_empty(seen):
            yield "empty"
        if config.noise_above is not None and seen.noise > self.noise[1] * config.noise_above:
            yield "noise"
        if config.noise_below is not None and seen.noise < self.noise[0] * config.noise_below:
            yield "noise"
        if config.body_share is not None and seen.body_share < min(
            config.body_share, self.body_share
        ):
            yield "outside_body"
        if self._hu_is_off(seen):
            yield "hu"
        if self._area_is_off(seen):
            yield "area"
        if self._falls_apart(seen):
            yield "components"
        if self._disagrees(image, label, seen):
            yield "disagreement"
        if config.copy_share is not None:
            apart = distance(image, self.reference.descriptors, low)
            same = SAME_HU * self.modality.per_hu
            if float(apart.min()) < max(config.copy_share * self.nearest, same):
                yield "copy"

    def _is_empty(self, seen: Figures) -> bool:
        return bool(self.ids) and not self.allows_empty and sum(seen.pixels) < self.reference.least

    def _hu_is_off(self, seen: Figures) -> bool:
        margin, wider = self.config.hu_margin, self.config.hu_spread
        if margin is not None:
            margin *= self.modality.margin_per_hu
            pairs = list(zip(seen.hu_levels, self.levels, strict=True))
            for values, bounds in ((seen.hu_median, self.hu), (seen.hu_contrast, self.contrast)):
                at = (b.at(n) for b, n in zip(bounds, seen.pixels, strict=True))
                pairs += zip(values, at, strict=True)
            if any(v < low - margin or v > high + margin for v, (low, high) in pairs):
                return True
        return wider is not None and any(
            value > bounds.at(size)[1] * wider
            for value, bounds, size in zip(seen.hu_spread, self.spread, seen.pixels, strict=True)
        )

    def _area_is_off(self, seen: Figures) -> bool:
        factor = self.config.area_factor
        return factor is not None and any(
            not low / factor <= count <= high * factor
            for count, (low, high) in zip(seen.pixels, self.area, strict=True)
            if count
        )

    def _falls_apart(self, seen: Figures) -> bool:
        more = self.config.components_more
        return more is not None and any(
            parts > bounds.at(count)[1] + more
            for parts, bounds, count in zip(
                seen.components, self.components, seen.pixels, strict=True
            )
            if count
        )

    def _disagrees(self, image: Image, label: Label, seen: Figures) -> bool:
        config = self.config
        if config.agreement_margin is None or not self.ids:
            return False
        members = self.reference.segmenters
        votes = torch.stack([m.probabilities(image[None]) for m in members]).mean(0)
        found = members[0].named(votes)[0]
        sizes = [*seen.pixels, sum(seen.pixels)]
        least = [max(b.at(n)[0] - config.agreement_margin, config.agreement)
                 for b, n in zip(self.agreement, sizes, strict=True)]  # fmt: skip
        shares = overlap(label, found, self.ids)
        return any(share < bound for share, bound in zip(shares, least, strict=True))


def open_filter(
    path: str | Path,
    config: FilterConfig | None = None,
    *,
    cache: SliceCache | None = None,
    data: DataConfig | None = None,
    unlabeled: SliceCache | None = None,
    device: str | torch.device = "cpu",
) -> Filter:
    """The filter kept in ``path``, built there first where it is missing or of something else.

    One process builds and the others wait for it.  Without a cache what is there is used.

    Args:
        path: a safetensors file, such as ``filter.safetensors`` in a run folder.
        config: the settings; None takes the defaults.
        cache: where the training slices are; None where they are not at hand.
        data: which slices of them, and through which window; None takes the defaults.
        unlabeled: scans without labels that joined training, which must not be copied either.
        device: where segmenters are trained and compute.

    Raises:
        ConfigError: no file and no cache, or a file that was built with other settings and no
            cache; pictures or masks alone, or labels that the cache does not have.
        DataError: no slice of the cache qualifies.
        WeightsError: the file is damaged or holds something else.
    """
    path, config = Path(path), config or FilterConfig()
    place = torch.device(device)
    wanted = None if cache is None else recipe(cache, data or DataConfig(), config, unlabeled)
    found = _kept(path, wanted, config, place)
    if found is None and cache is not None:
        with explaining(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent / f".{path.name}.lock"):
            found = _kept(path, wanted, config, place)
            if found is None:
                write(path, build(cache, data or DataConfig(), config, place, unlabeled))
                found = read(path, place)
    if found is None:
        raise ConfigError(f"{path}: no filter there; it is built from the training slices' cache")
    return Filter(found, config)


def _kept(
    path: Path, wanted: dict[str, Any] | None, config: FilterConfig, device: torch.device
) -> Reference | None:
    """The reference in ``path``, or None where it has to be built."""
    if not path.exists():
        return None
    found = read(path, device)
    if wanted is not None:
        return found if found.made_from == wanted else None
    for name, value in build_settings(config).items():
        if found.made_from[name] != value:
            raise ConfigError(
                f"{path}: built with filter.{name} {found.made_from[name]}, asked for {value}; "
                "give that, or the cache of the training slices to build it anew"
            )
    return found
