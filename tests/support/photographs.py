"""Picture collections fabricated in the layouts in which they are published."""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import io

from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare

Levels = np.ndarray


def scene(seed: int, height: int = 40, width: int = 48) -> Levels:
    """An RGB picture (y, x, 3) that no flip, turn or exchange of channels leaves as it is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    red = 255 * x / width
    green = 200 * y / height
    blue = np.where((x < width / 3) & (y < height / 4), 250, 20)
    picture = np.stack([red, green, blue], -1) + rng.integers(-15, 15, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


def save(path: Path, levels: Levels, **how: object) -> Path:
    """Write levels, JPEG at its best quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".png":
        how = {"quality": 100, "subsampling": 0, **how}
    Image.fromarray(levels).save(path, **how)  # type: ignore[arg-type]
    return path


def raw_png(levels: Levels, depth: int, kind: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of rows of big-endian samples, put together chunk by chunk."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width = levels.shape[:2]
    samples = levels.astype(">u2" if depth == 16 else "u1")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        + b"".join(chunk(*one) for one in extra)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def cifar(root: Path, records: int = 10_000) -> dict[str, Levels]:
    """CIFAR-10, binary version: what is in each batch, (n, 3073)."""
    root.mkdir(parents=True)
    made = {}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rng = np.random.default_rng(number)
        batch = rng.integers(0, 256, (records, 3073), np.uint8)
        batch[:, 0] = rng.integers(0, 10, records)
        (root / f"{name}.bin").write_bytes(batch.tobytes())
        made[name] = batch
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (root / "batches.meta.txt").write_text(names.replace(" ", "\n") + "\n\n")
    return made


ATTRIBUTES = ("5_o_Clock_Shadow", "Eyeglasses", "Male", "Smiling")


def face(number: int, smiling: bool, height: int = 218, width: int = 178) -> Levels:
    """A head whose mouth is bright where it smiles; one row of its corner tells the number."""
    y, x = np.mgrid[:height, :width].astype(float)
    y, x = y / height - 0.5, x / width - 0.5
    picture = np.full((height, width, 3), (40, 60, 90 + number % 50))
    picture[(x / 0.3) ** 2 + (y / 0.35) ** 2 < 1] = (200, 160, 120)
    picture[(abs(x) < 0.15) & (abs(y - 0.15) < 0.05)] = (250, 250, 250) if smiling else (90, 20, 20)
    return picture.astype(np.uint8)


def celeba(
    root: Path, count: int = 24, draw: Callable[[int, bool], Levels] = face, suffix: str = ".txt"
) -> dict[str, dict[str, bool]]:
    """CelebA: who has which attribute.  A sixth is for validation, a sixth for test."""
    rng = np.random.default_rng(1)
    has = {
        f"{number:06d}.jpg": dict(zip(ATTRIBUTES, rng.random(4) < 0.5, strict=True))
        for number in range(1, count + 1)
    }
    for number, (name, row) in enumerate(has.items(), 1):
        save(root / "img_align_celeba" / name, draw(number, bool(row["Smiling"])), quality=95)
    values = {name: ["1" if v else "-1" for v in row.values()] for name, row in has.items()}
    side = {name: "012"[(i % 6 == 4) + 2 * (i % 6 == 5)] for i, name in enumerate(has)}
    backwards = sorted(has, reverse=True)
    if suffix == ".txt":
        lines = [str(count), " ".join(ATTRIBUTES) + " "]
        lines += [f"{name} " + " ".join(f"{v:>2}" for v in values[name]) for name in backwards]
        parts = [f"{name} {side[name]}" for name in has]
    else:
        lines = [",".join(["image_id", *ATTRIBUTES])]
        lines += [",".join([name, *values[name]]) for name in backwards]
        parts = ["image_id,partition", *(f"{name},{side[name]}" for name in has)]
    (root / f"list_attr_celeba{suffix}").write_text("\n".join(lines) + "\n")
    (root / f"list_eval_partition{suffix}").write_text("\n".join(parts) + "\n")
    return has


def lfw(
    root: Path, people: Mapping[str, int], folder: str = "lfw"
) -> dict[tuple[str, int], Levels]:
    """LFW with two attributes: the scores of each face."""
    rng = np.random.default_rng(2)
    scores, lines = {}, []
    for person, count in people.items():
        for number in range(1, count + 1):
            name = person.replace(" ", "_")
            path = root / folder / name / f"{name}_{number:04d}.jpg"
            scores[name, number] = rng.normal(size=2)
            save(path, scene(len(scores), 250, 250), quality=90)
            told = "\t".join(f"{score:.12f}" for score in scores[name, number])
            lines.append(f"{person}\t{number}\t{told}")
    head = ["#\tlfw_attributes.txt", "#\tperson\timagenum\tMale\tMouth Closed"]
    rng.shuffle(lines)
    (root / "lfw_attributes.txt").write_text("\n".join([*head, *lines]) + "\n")
    return scores


def flowers(root: Path, kinds: Sequence[int], parts: Mapping[str, Sequence[int]]) -> None:
    """Oxford-102: the kind of each picture, and the numbers in each part."""
    for number in range(1, len(kinds) + 1):
        save(root / "jpg" / f"image_{number:05d}.jpg", scene(number, 50 + number, 60))
    io.savemat(root / "imagelabels.mat", {"labels": np.array([kinds], np.uint8)})
    ids = {name: np.array([part], np.uint16) for name, part in parts.items()}
    io.savemat(root / "setid.mat", ids, do_compression=True)


def filled(root: Path, cache: Path, **settings) -> SliceCache:
    prepare(open_source(str(root)), cache, CacheSettings(**{"size": 16, **settings}), 0)
    return SliceCache.open(cache)


def side(cache: SliceCache, name: str, what: str = "image") -> np.ndarray:
    """All of one side of the split."""
    return np.concatenate([getattr(cache.cases[id], what) for id in cache.split[name]])
