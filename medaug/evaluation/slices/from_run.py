"""Draw slices from a run for a report, saved in chunks so that a kill costs little."""

import hashlib
import io
import json
from functools import partial
from pathlib import Path

import numpy as np

from medaug.core.errors import ConfigError
from medaug.core.geometry import spacing
from medaug.core.types import Sample
from medaug.data.formats.limits import read_arrays
from medaug.evaluation.slices.evidence import SliceSet
from medaug.evaluation.slices.synthetic import Frame, Gathering, Synthetic
from medaug.runtime.files import read_checked, write_checked
from medaug.runtime.progress import progress
from medaug.synthesis.generator import Generator

CHUNK = 128


def open_run(run: Path, generator: Generator, n: int, seed: int, uncertainty: int) -> Synthetic:
    """Find samples 0 to ``n`` - 1 of a run, without a filter.

    Args:
        run: the run folder or weight file, for messages.
        generator: its weights.
        n: how many.
        seed: of the samples.
        uncertainty: alternatives of each.

    Raises:
        ConfigError: a run of pictures or of masks alone, or a number out of range.
    """
    if generator.kind == "image":
        raise ConfigError(f"{run}: draws pictures; the report is about slices of CT or MR")
    depends = generator.depends_on("latent", uncertainty)
    generator.generate(n, seed, uncertainty)  # refuses numbers out of range before anything is done
    data = generator.settings.data
    facts = [generator.fingerprint, n, seed, uncertainty, depends]
    return Synthetic(
        what=f"{n} slices drawn from a run of {generator.images} images",
        fingerprint=hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        facts={
            "samples": n,
            "seed": seed,
            "uncertainty": uncertainty,
            "images_seen": generator.images,
            "weights": generator.fingerprint,
            "filtered": False,
            "privacy": generator.privacy,
        },
        window_hu=data.window_hu,
        labels=dict(generator.labels),
        least=data.min_label_pixels if data.require_label and generator.labels else 0,
        modality=generator.modality,
        load=partial(_load, run, generator, n, seed, uncertainty),
    )


def _load(
    run: Path,
    generator: Generator,
    n: int,
    seed: int,
    uncertainty: int,
    frame: Frame,
    scratch: Path,
) -> SliceSet:
    x_mm, y_mm, _ = spacing(generator.affine)
    frame.check(run, (generator.size, generator.size), (x_mm, y_mm))
    key = hashlib.sha256(
        json.dumps([generator.fingerprint, seed, uncertainty]).encode()
    ).hexdigest()[:12]
    for other in scratch.glob("drawn-*.npz"):
        if key not in other.name:
            other.unlink()
    masks = generator.masks != "none"
    kept = Gathering(frame, generator.labels, masks)
    with progress("draw", n, "slices") as bar:
        for start in range(0, n, CHUNK):
            count = min(CHUNK, n - start)
            path = scratch / f"drawn-{key}-{start:06d}-{count}.npz"
            parts = _chunk(path)
            if parts is None:
                _draw(generator, path, start, count, seed, uncertainty)
                parts = _chunk(path)
            assert parts is not None
            for i in range(count):
                case = {name: whole[i] for name, whole in parts.items()}
                label, std, entropy = (case.get(name) for name in ("label", "std", "entropy"))
                kept.add(f"syn_{start + i:06d}", case["image"], label, std, entropy)
            bar.advance(count)
    return kept.done(run)


def _chunk(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a chunk, or None where it is not there or damaged."""
    try:
        return read_arrays(io.BytesIO(read_checked(path)))
    except (FileNotFoundError, ValueError):
        return None


def _draw(
    generator: Generator, path: Path, start: int, count: int, seed: int, uncertainty: int
) -> None:
    samples = list(generator.generate(count, seed, uncertainty, start))
    arrays = {"image": np.stack([sample.image for sample in samples])}
    if samples[0].label is not None:
        arrays["label"] = _stacked(samples, "label")
    if uncertainty > 1:
        arrays["std"] = _stacked(samples, "std")
        if samples[0].entropy is not None:
            arrays["entropy"] = _stacked(samples, "entropy")
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    write_checked(path, packed.getvalue())


def _stacked(samples: list[Sample], name: str) -> np.ndarray:
    return np.stack([getattr(sample, name) for sample in samples])
