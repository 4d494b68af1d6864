"""The arms of a study by name: what each teaches beyond the few labelled slices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from medaug.core.errors import ConfigError
from medaug.core.modality import modality_of
from medaug.core.registry import Entry, lookup
from medaug.evaluation.downstream.lesson import PatientSubset
from medaug.evaluation.downstream.streams import Stream, changed, plain
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import randomise_contrast
from medaug.transforms.cutmix import cutmix
from medaug.transforms.scan import Scan

Role = Literal["reference", "baseline", "rival", "synthetic"]


@dataclass(frozen=True)
class Arm:
    """One way to teach.

    Attributes:
        name: what it is asked for by.
        summary: what it teaches, in a line.
        role: ``baseline`` is standard augmentation, ``rival`` what it costs little to do instead of
            synthesis, ``reference`` what frames the table.
        stream: its slices, for the patients of a lesson.
        standard: whether they get standard augmentation.
        whole: whether it takes all labelled patients, whatever n is.
        unlabeled: whether it needs patients beyond the n, without their labels.
    """

    name: str
    summary: str
    role: Role
    stream: Callable[[PatientSubset], Stream]
    standard: bool = True
    whole: bool = False
    unlabeled: bool = False

    @property
    def rivals(self) -> tuple[str, ...]:
        """What a synthetic arm must beat: the cheap ways to use the same patients."""
        return (*CHEAP, "pseudo-labels") if self.unlabeled else CHEAP


CHEAP = ("cutmix", "carvemix", "contrast")


def _real(lesson: PatientSubset) -> Stream:
    return plain(lesson.real())


def _cutmix(lesson: PatientSubset) -> Stream:
    return changed(lesson.real(), cutmix, lesson.config.study.ratio, lesson.pixel_mm)


def _carvemix(lesson: PatientSubset) -> Stream:
    return changed(lesson.real(), carvemix, lesson.config.study.ratio, lesson.pixel_mm)


def _contrast(lesson: PatientSubset) -> Stream:
    strength = lesson.config.study.contrast_strength
    low, high = modality_of(lesson.codec.modality).limits

    def mix(mine: Scan, other: Scan, rng: np.random.Generator) -> Scan:
        return randomise_contrast(mine, rng, strength=strength, limits=(low, high))

    return changed(lesson.real(), mix, lesson.config.study.ratio, lesson.pixel_mm)


def _synthetic(lesson: PatientSubset, masks: str) -> Stream:
    return lesson.beside_real(lesson.synthetic(masks))


def _unlabeled(lesson: PatientSubset) -> Stream:
    masks = lesson.config.study.unlabeled_masks
    return lesson.beside_real(lesson.synthetic(masks, others="unlabeled"))


def _guessed(lesson: PatientSubset) -> Stream:
    return lesson.beside_real(lesson.synthetic("layout", others="guessed"))


def _pseudo(lesson: PatientSubset) -> Stream:
    return lesson.beside_real(lesson.pseudo_labels())


def _unfiltered(lesson: PatientSubset) -> Stream:
    return lesson.beside_real(lesson.synthetic(lesson.config.study.variant, filtered=False))


def _ignoring(lesson: PatientSubset) -> Stream:
    return lesson.beside_real(lesson.synthetic(lesson.config.study.variant, ignoring=True))


def _only(lesson: PatientSubset) -> Stream:
    return plain(lesson.synthetic(lesson.config.study.variant))


_ALL = (
    Arm("real", "the labelled slices as they are", "reference", _real, standard=False),
    Arm("standard", "small warps, elastic too, contrast, brightness, noise", "baseline", _real),
    Arm("cutmix", "and boxes of other patients", "rival", _cutmix),
    Arm("carvemix", "and organs of other patients", "rival", _carvemix),
    Arm("contrast", "and contrast at random, tissue by tissue", "rival", _contrast),
    Arm(
        "synthetic-joint",
        "and samples, image and mask drawn together",
        "synthetic",
        partial(_synthetic, masks="joint"),
    ),
    Arm(
        "synthetic-layout",
        "and samples, images drawn for deformed masks",
        "synthetic",
        partial(_synthetic, masks="layout"),
    ),
    Arm(
        "synthetic-unlabeled",
        "and samples of a generator that saw other scans without labels too",
        "synthetic",
        _unlabeled,
        unlabeled=True,
    ),
    Arm(
        "synthetic-guessed",
        "and samples for deformed masks, of a generator that saw those scans pseudo-labelled",
        "synthetic",
        _guessed,
        unlabeled=True,
    ),
    Arm(
        "pseudo-labels",
        "and those scans as the segmenter of the arm standard labels them",
        "rival",
        _pseudo,
        unlabeled=True,
    ),
    Arm("filter-off", "and samples that no filter has seen", "synthetic", _unfiltered),
    Arm(
        "uncertainty-as-ignore",
        "and samples, pixels with uncertain masks left out of the loss",
        "synthetic",
        _ignoring,
    ),
    Arm("synthetic-only", "samples and no real slice", "synthetic", _only),
    Arm("ceiling", "all patients labelled", "reference", _real, whole=True),
)
ARMS = {arm.name: arm for arm in _ALL}


def chosen(names: Sequence[str]) -> list[Arm]:
    """The arms called ``names``, in the order of the table; all of them where there are none.

    Raises:
        ConfigError: no such arm, or one named twice.
    """
    table = {name: Entry(name, "", arm.summary) for name, arm in ARMS.items()}
    for name in names:
        lookup(table, name, "arm")
        if names.count(name) > 1:
            raise ConfigError(f"arm {name} is named twice")
    return [arm for arm in _ALL if not names or arm.name in names]
