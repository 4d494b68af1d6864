"""What each kind of file is read into: facets that must not change unsaid, and what is said."""

import contextlib
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.cli.describe import describe
from medaug.core.codec import CTCodec
from medaug.core.config import DataConfig, read_yaml, resolve
from medaug.core.errors import DataError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, PrepareReport, SliceCache, prepare
from medaug.data.feed.feed import Feed
from medaug.data.source import Source
from medaug.data.sources.unlabeled import Unlabeled
from medaug.evaluation.features.script import Script
from medaug.evaluation.page.training_curves import training_curves
from medaug.evaluation.slices.foreign import open_foreign
from medaug.evaluation.slices.from_folder import looks_like, open_synthesised
from medaug.evaluation.slices.synthetic import Frame
from medaug.synthesis import journal
from medaug.synthesis.filter.filter import open_filter
from medaug.synthesis.filter.settings import FilterConfig
from medaug.synthesis.generator import Generator
from medaug.synthesis.masks.folder import OwnMasks
from medaug.synthesis.nnunet_splits import nnunet_splits
from medaug.synthesis.synthesize import synthesize
from medaug.training.loop import fit
from medaug.training.run import trained_on
from medaug.transforms.pairs import _written, open_pairs
from tests.conftest import TINY


@dataclass
class Seen:
    """What was read: facets by name as hashes, what was said of it, and cases refused."""

    facets: dict[str, str]
    said: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)


def _hash(value: Any) -> str:
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.ascontiguousarray(value)
        raw = f"{array.dtype}{array.shape}".encode() + array.tobytes()
    else:
        raw = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(raw).hexdigest()[:16]


def _of_cache(cache: SliceCache, report: PrepareReport | None = None) -> Seen:
    facets: dict[str, Any] = {}
    for id, case in cache.cases.items():
        arrays = {"image": case.image, "geometry": case.affine, "label": case.label}
        arrays |= {"classes": case.classes}
        arrays |= {"attributes": case.attributes} if cache.attributes else {}
        facets |= {f"{k}/{id}": np.asarray(v) for k, v in arrays.items() if v is not None}
        facets[f"counts/{id}"] = {name: n.tolist() for name, n in case.label_pixels.items()}
    about = [cache.kind, cache.labels, cache.classes, cache.attributes, cache.modality]
    facets["names"] = [about, cache.source]
    facets["split"] = cache.split
    seen = Seen({name: _hash(value) for name, value in facets.items()})
    seen.said |= {f"{id}: {c}: {r}" for id, k in cache.cases.items() for c, r in k.doubts.items()}
    seen.said |= {f"{id}: {r}" for id, case in cache.cases.items() for r in case.left_out.values()}
    if report is not None:
        seen.refused = [str(problem) for problem in report.failed]
        seen.said |= {f"{id}: {why}" for id, why in report.excluded.items()}
        seen.said |= {f"changed {id}: {why}" for id, why in report.changed.items()}
    return seen


def _prepared(opened: Source, cache: Path, **settings: Any) -> Seen:
    chosen = CacheSettings(**{"size": 32, "holdout": 0.0, **settings})
    report = prepare(opened, cache, chosen, 0)
    return _of_cache(SliceCache.open(cache), report)


def source(root: Path, place: str = "", **settings: Any) -> Seen:
    """Scans or pictures: opened by looking at them, and prepared."""
    return _prepared(open_source(str(root / place)), root / ".cache", **settings)


def unlabeled(root: Path) -> Seen:
    """Scans without labels, as they join training."""
    return _prepared(Unlabeled(root), root / ".cache")


def cache(root: Path) -> Seen:
    """A cache as training sees it: opened, and every slice of it taken."""
    opened = SliceCache.open(root / "cache")
    about = describe(root / "cache")
    data = DataConfig(size=32, augment=None)
    codec = CTCodec((-160.0, 240.0), opened.labels)
    feed = Feed(opened, data, codec, seed=0, device=torch.device("cpu"))
    seen = _of_cache(opened)
    seen.facets["feed"] = _hash(feed.images)
    seen.facets["inspect"] = _hash([about["slices"], about["labelled_slices"], about["problems"]])
    return seen


def resumed(root: Path) -> Seen:
    """A cache that the same prepare command completes."""
    return _prepared(open_source(str(root / "data")), root / "cache", holdout=0.25)


def weights(root: Path) -> Seen:
    """A run that is drawn from."""
    source = Generator.from_pretrained(root / "run", "cpu")
    samples = list(source.generate(2, seed=0, uncertainty=2))
    drawn = [_hash(s.image) + _hash(s.label) + _hash(s.std) for s in samples]
    about = describe(root / "run")
    there = trained_on(root / "run")
    curves = [curve.lines for curve in training_curves(root / "run")]
    facets = {
        "samples": drawn,
        "geometry": source.affine.tolist(),
        "privacy": source.privacy,
        "cache": None if there is None else there.fingerprint,
        "curves": curves,
    }
    return Seen({name: _hash(value) for name, value in facets.items()}, set(about["problems"]))


def continued(root: Path) -> Seen:
    """A run that the same train command goes on with."""
    more = {"train": {"keep_snapshots": 1}}
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        fit(resolve(TINY, more), SliceCache.open(root / "cache"), root / "run", device="cpu")
    seen = weights(root)
    seen.said |= {line for line in said.getvalue().splitlines() if "damaged" in line}
    return seen


def filters(root: Path) -> Seen:
    """A filter that judges."""
    config = FilterConfig(segmenter_images=32, folds=2)
    found = open_filter(root / "run" / "filter.safetensors", config)
    known = found.reference
    columns = {name: _hash(np.asarray(v)) for name, v in known.columns.items()}
    return Seen({"columns": _hash(columns), "codec": _hash(known.codec.to_dict())})


def output(root: Path, form: str) -> Seen:
    """A synthesised folder, as every command reads it."""
    out, facets = root / "out", {}
    about = describe(out)
    rows = journal.read(out)
    facets["rows"] = _hash({index: rows[index] for index in rows})
    facets["inspect"] = _hash([about["samples"], about["settings"]])
    if form != "png":
        _written.cache_clear()
        pairs = open_pairs(out)
        taken = [pairs.pair(index, 0) for index in pairs.indices(3)]
        facets["pairs"] = _hash([_hash(s.image) + _hash(s.label) for s in taken])
        facets["affine"] = _hash([s.affine.tolist() for s in taken])
        assert looks_like(out)
        found = open_synthesised(out)
        facets["synthetic"] = _hash([found.fingerprint, found.labels, found.window_hu])
    if form == "nifti":
        facets["splits"] = _splits(out)
    return Seen(facets, set(about["problems"]))


def _splits(out: Path) -> str:
    """What nnU-Net reads of the folder; with synthetic cases alone it is refused."""
    try:
        return _hash(str(nnunet_splits(out, 2, dry_run=True)))
    except DataError as error:
        if "no real case" not in str(error):
            raise
        return "no real case"


def again(root: Path) -> Seen:
    """A synthesised folder that the same command goes on with."""
    source = Generator.from_pretrained(root / "run", "cpu")
    synthesize(source, 3, root / "out", format="nifti", uncertainty=2)
    rows = journal.read(root / "out")
    return Seen({"rows": _hash({index: rows[index] for index in rows})})


def masks(root: Path) -> Seen:
    """Masks that layouts are made of."""
    found = OwnMasks(root, {"pancreas": 1}, {}, 32, 200.0, None)
    return Seen({"masks": _hash(found.own)})


def foreign(root: Path) -> Seen:
    """Slices of another tool that are judged."""
    found = open_foreign(root, {"pancreas": 1})
    frame = Frame(root, 40, 6.0, 2.5, (-160.0, 240.0), {"pancreas": 1}, 1)
    kept = found.load(frame, root)
    return Seen({"images": _hash(kept.images), "names": _hash(found.labels)})


def config(root: Path) -> Seen:
    """A config, resolved."""
    found = resolve(read_yaml(root / "config.yaml")).dump()
    return Seen({"config": _hash(found)}, {json.dumps(found, sort_keys=True)})


def script(root: Path) -> Seen:
    """A feature extractor that is run."""
    found = Script(root / "features.pt", (-160.0, 240.0))
    rows = found(np.arange(2 * 256, dtype=np.int16).reshape(2, 16, 16) - 100)
    return Seen({"features": _hash(rows)})
