"""One choice of patients: what can be made of their slices, each thing made once and kept."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from medaug.core.codec import CTCodec
from medaug.core.config import merge, resolve
from medaug.core.errors import DataError
from medaug.core.seeds import derive
from medaug.core.types import LabelMap
from medaug.data.cache.store import SliceCache
from medaug.data.cache.subset import part
from medaug.evaluation.downstream import synthesis
from medaug.evaluation.downstream.material import pools
from medaug.evaluation.downstream.settings import StudyConfig
from medaug.evaluation.downstream.streams import Pool, Stream, mixed, plain
from medaug.evaluation.downstream.student import train_segmenter
from medaug.evaluation.downstream.synthesis import SyntheticPool
from medaug.runtime.device import choose_device
from medaug.runtime.files import write_json
from medaug.runtime.progress import progress
from medaug.synthesis.filter.filter import open_filter
from medaug.synthesis.generator import Generator
from medaug.training.segmenter import Segmenter, load, save


@dataclass
class PatientSubset:
    """The patients of one (n, subset), and the folder of the study.

    Attributes:
        name: ``n4-s0``, or ``all-s0`` for all patients.
        cache: the whole cache, of which only ``patients`` and ``others`` are looked at.
        patients: whose labels are known.
        others: who may be looked at without their labels.
        seed: of everything drawn for these patients, the same in every arm.
        used: which pieces of work went into what was asked for, for its cost.
        images: how many images those took, by what was done with them.
    """

    name: str
    cache: SliceCache
    patients: list[str]
    others: list[str]
    config: StudyConfig
    codec: CTCodec
    out: Path
    device: str
    seed: int
    used: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel."""
        return self.cache.cases[self.patients[0]].spacing_mm[0]

    @contextmanager
    def piece(self, name: str, done: bool) -> Iterator[None]:
        """Note that ``name`` goes into the arm, and the seconds it takes, over all attempts."""
        self.used.append(name)
        if done:
            yield
            return
        place, started = self.out / "seconds" / f"{name}.json", time.monotonic()
        try:
            yield
        finally:
            write_json(place, seconds(place) + time.monotonic() - started)

    @cached_property
    def known(self) -> SliceCache:
        """The patients as a cache of their own."""
        return part(self.cache, self.out / "caches" / self.name, self.patients)

    def need_others(self) -> None:
        """Refuse a lesson on all patients.

        Raises:
            DataError: there are no others.
        """
        if not self.others:
            raise DataError("no training patient is left over whose scan could go unlabelled")

    @cached_property
    def with_others(self) -> SliceCache:
        """The patients, and the others without their labels.

        Raises:
            DataError: there are no others.
        """
        self.need_others()
        place = self.out / "caches" / f"{self.name}-unlabeled"
        return part(self.cache, place, self.patients, self.others)

    @cached_property
    def with_guesses(self) -> SliceCache:
        """The patients, and the others as the segmenter of the arm ``standard`` labels them.

        Of what it finds in a scan the largest connected part of each label is kept.

        Raises:
            DataError: there are no others.
        """
        self.need_others()
        teacher = self.teacher()
        guessed = {}
        for name in self.others:
            found = teacher.predict(np.array(self.cache.cases[name].image), batch=16)
            guessed[name] = largest_parts(found, list(self.codec.labels.values()))
        place = self.out / "caches" / f"{self.name}-guessed"
        return part(self.cache, place, self.patients, guessed=guessed)

    def teacher(self) -> Segmenter:
        """The segmenter that labels the others' scans: that of the arm ``standard``."""
        return self.student("standard", plain(self.real()), standard=True)

    def real(self) -> Pool:
        """The labelled slices."""
        return pools(self.known, self.config.generator.data, self.codec.labels)[0]

    def beside_real(self, other: Pool) -> Stream:
        """Real slices, and ``other`` with the probability that the config says."""
        return mixed(plain(self.real()), plain(other), self.config.study.ratio)

    def synthetic(
        self,
        masks: str,
        *,
        others: Literal["unlabeled", "guessed"] | None = None,
        filtered: bool = True,
        ignoring: bool = False,
    ) -> Pool:
        """Slices of a generator trained on these patients.

        Args:
            masks: ``joint`` or ``layout``.
            others: how it has seen the scans of the others too: without labels, or with those that
                the segmenter of the arm ``standard`` gives them.
            filtered: whether only what the filter keeps is taken.
            ignoring: whether pixels with uncertain masks are marked ``IGNORED``.

        Raises:
            DataError: the filter keeps hardly anything, or there are no others.
        """
        study = self.config.study
        kind = f"{masks}-{others}" if others else masks
        cache = self.known
        if others:
            cache = self.with_others if others == "unlabeled" else self.with_guesses
        run = self.out / "generators" / f"{self.name}-{kind}"
        drawn = self._drawn(kind, cache, masks, run)
        index = drawn.first(study.samples, filtered)
        if not ignoring:
            return drawn.pool(index)
        pool = drawn.pool(index)
        place = self.out / "samples" / f"{self.name}-{kind}-ignored.npz"
        found = synthesis.kept(place)
        with self.piece(f"ignored-{self.name}-{kind}", found is not None):
            if found is None:
                labels = synthesis.ignored(
                    Generator.from_pretrained(run, self.device), index, pool.labels,
                    study.uncertainty, study.ignore_above,
                )  # fmt: skip
                synthesis.keep(place, labels=labels)
                found = {"labels": labels}
        self.images["alternatives"] = study.uncertainty * len(index)
        return drawn.pool(index, found["labels"])

    def _drawn(self, kind: str, cache: SliceCache, masks: str, run: Path) -> SyntheticPool:
        """The samples of a generator, which is trained first where that is not done yet."""
        study, seed = self.config.study, derive(self.seed, "generator") % 2**31
        place = self.out / "samples" / f"{self.name}-{kind}.npz"
        found = synthesis.kept(place)
        data = {"masks": masks, "name": cache.source}
        asked = merge(self.config.generator.dump(), {"data": data, "train": {"seed": seed}})
        config = resolve(asked)
        with self.piece(f"generator-{self.name}-{kind}", found is not None):
            if found is None:
                synthesis.train(config, cache, run, self.device)
        with self.piece(f"filter-{cache.path.name}", found is not None):
            if found is None:
                judging = open_filter(
                    self.out / "filters" / f"{cache.path.name}.safetensors",
                    self.config.filter,
                    cache=cache,
                    data=config.data.model_copy(update={"masks": "joint"}),
                    device=choose_device(self.device),
                )
        with self.piece(f"samples-{self.name}-{kind}", found is not None):
            if found is None:
                generator = Generator.from_pretrained(run, self.device)
                most = round(study.samples * study.draws)
                drawn = synthesis.draw(generator, judging, study.samples, most)
                synthesis.keep(place, **vars(drawn))
                found = vars(drawn)
        drawn = SyntheticPool(**found)
        self.images |= {
            "generator": config.train.images,
            "samples": len(drawn.kept),
            "kept": int(drawn.kept.sum()),
        }
        return drawn

    def pseudo_labels(self) -> Pool:
        """The others' slices, where the segmenter of the arm ``standard`` finds a label.

        Raises:
            DataError: it finds none, or there are no others.
        """
        data = self.config.generator.data
        _, images, owners = pools(self.with_others, data, self.codec.labels)
        teacher = self.teacher()
        labels = teacher.predict(images, batch=16) if len(images) else np.empty((0, 1, 1), "u1")
        found = (labels > 0).sum((1, 2)) >= data.min_label_pixels
        if not found.any():
            raise DataError(f"the teacher finds no label in {len(images)} slices of the others")
        self.images["pseudo-labelled"] = int(found.sum())
        names = [name for name, there in zip(owners, found, strict=True) if there]
        return Pool(images[found], labels[found], names)

    def student(self, arm: str, stream: Stream, *, standard: bool) -> Segmenter:
        """The segmenter of an arm, taught or, where that is done, read."""
        study, key = self.config.study, f"{self.name}-{arm}"
        place = self.out / "students" / f"{key}.safetensors"
        with self.piece(f"student-{key}", place.exists()):
            if not place.exists():
                with progress(key, study.steps, "steps") as bar:
                    network = train_segmenter(
                        stream, self.codec, steps=study.steps, batch=study.batch, seed=self.seed,
                        standard=standard, device=choose_device(self.device), bar=bar,
                    )  # fmt: skip
                save(place, network, {"arm": arm, "patients": self.patients})
        self.images["student"] = self.images.get("student", 0) + study.steps * study.batch
        return load(place, choose_device(self.device))[0]


def largest_parts(labels: LabelMap, ids: Sequence[int]) -> LabelMap:
    """The largest connected part of each label in a scan (z, y, x); all else becomes 0."""
    kept = np.zeros_like(labels)
    for number in ids:
        parts, count = ndimage.label(labels == number)
        if count:
            kept[parts == 1 + np.bincount(parts.ravel())[1:].argmax()] = number
    return kept


def seconds(place: Path) -> float:
    """The seconds kept in a file, 0 without it."""
    return float(place.read_text()) if place.exists() else 0.0
