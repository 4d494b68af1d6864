"""The commands on digits and their classes, and what explore makes of a run."""

import csv
import math
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.test_cli import MAKE
from tests.conftest import TINY, Medaug


def write_digits(root: Path) -> Path:
    """Noise in ten classes, as idx files."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for part, n in (("train", 40), ("t10k", 10)):
        images = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, n, 28, 28)
        (root / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, n)
        labels = (np.arange(n) % 10).astype(np.uint8)
        (root / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return root


def test_digits_train_with_their_class_and_become_png(medaug: Medaug, tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits")
    for model in ("wgan_gp", "vaegan"):
        settings = ["--images", 32, "--set", "train.batch=8", "--set", "model.width=8"]
        if model == "vaegan":
            settings += ["--set", "model.prior.width=16", "--set", "model.prior.steps=2"]
        trained = medaug(
            "train", "--data", digits, "--model", model, "--device", "cpu", *settings, "--json"
        )
        assert trained.code == 0, trained.err
        assert trained.json["run"] == f"runs/digits-{model}"
        out = tmp_path / f"{model}-out"
        made = medaug(*MAKE, "-n", 12, "--out", out, "--run", trained.json["run"])
        assert made.code == 0, made.err
        with (out / "manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["class"]) for row in rows] == [i % 10 for i in range(12)]
        assert (out / rows[0]["image"]).suffix == ".png"


def test_one_class_on_request_and_codes_as_pictures(medaug: Medaug, tmp_path: Path) -> None:
    clothes = write_digits(tmp_path / "fashion-mnist")
    model = TINY["model"].items()
    small = [word for key, value in model for word in ("--set", f"model.{key}={value}")]
    trained = medaug(
        *("train", "--data", clothes, "--run", "run", "--images", 16, "--set", "train.batch=8"),
        *("--device", "cpu", *small),
    )
    assert trained.code == 0, trained.err
    make = [
        "synthesize",
        "--no-filter",
        "-n",
        3,
        "--run",
        "run",
        "--uncertainty",
        0,
        "--device",
        "cpu",
    ]
    planned = medaug(*make, "--out", "coats", "--class", "coat", "--dry-run", "--json")
    assert planned.json["settings"]["condition"] == {"class": 4}
    assert not Path("coats").exists()
    assert medaug(*make, "--out", "coats", "--class", "coat").code == 0
    with Path("coats/manifest.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["4"] * 3
    same = medaug(*make, "--out", "coats", "--condition", "class=4", "--json")
    assert same.json["already"] == 3
    other = medaug(*make, "--out", "coats", "--class", "7")
    assert other.code == 2
    assert other.err == (
        "medaug: coats: holds samples made with condition class=4, asked for condition class=7; "
        "choose another folder, or the settings it was made with\n"
    )
    names = "t-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot"
    for asked, message in (
        (["--class", "spoon"], f"class 'spoon' is not known (known: {names}, or 0 to 9)"),
        (
            ["--condition", "height=0"],
            "condition 'height' is not known; this model was conditioned on class",
        ),
        (["--condition", "tall"], "condition must be name=value, such as height=0.2, got 'tall'"),
        (
            ["--condition", "class=1", "--class", "2"],
            "condition class is given twice, 1 and 2",
        ),
    ):
        refused = medaug(*make, "--out", "x", *asked)
        assert (refused.code, refused.err) == (2, f"medaug: {message}\n")
        assert not Path("x").exists()

    look = ["explore", "run", "--rows", 2, "--steps", 3, "--device", "cpu"]
    would = medaug(*look, "--attribute", "ankle boot", "--dry-run", "--json")
    assert would.json["out"] == "run/explore-attribute-ankle-boot.png"
    assert (would.json["rows"], would.json["columns"]) == (2, 5)
    assert not Path("run/explore-attribute-ankle-boot.png").exists()
    drawn = medaug(*look, "--attribute", "ankle boot", "--json")
    assert drawn.code == 0, drawn.err
    assert drawn.json["facts"] == {"slices_with": 4, "slices_without": 36}
    with Image.open("run/explore-attribute-ankle-boot.png") as picture:
        assert picture.size == (5 * (168 + 2) + 2, 2 * (168 + 2) + 2)
    assert medaug(*look, "--interpolate", "--out", "walk.png").code == 0
    assert Path("walk.png").exists()
    again = medaug("train", "--data", clothes, "--run", "run", "--images", 16, *small,
                   "--set", "train.batch=8", "--device", "cpu")  # fmt: skip
    assert again.code == 0, again.err


def test_explore_on_ct_and_its_mistakes(
    medaug: Medaug, tiny_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    look = ["explore", tiny_run, "--device", "cpu", "--rows", 2, "--out", "x.png"]
    for where in ([], ["--cache", phantom_cache]):
        drawn = medaug(*look, "--reconstruct", *where)
        assert drawn.code == 0, drawn.err
        assert drawn.out.startswith("x.png: reconstruct, 2 x 2 pictures, mean absolute error hu ")
        Path("x.png").unlink()
    one = "explore does one thing at a time: give one of --interpolate, --attribute NAME, "
    for asked, message in (
        ([], f"{one}--reconstruct, --likelihood (given: none)"),
        (
            ["--interpolate", "--reconstruct"],
            f"{one}--reconstruct, --likelihood (given: --interpolate, --reconstruct)",
        ),
        (
            ["--attribute", "liver", "--cache", phantom_cache],
            f"attribute 'liver' is not in {phantom_cache} (there: pancreas)",
        ),
        (
            ["--reconstruct", "--cache", tmp_path / "none"],
            f"{tmp_path / 'none'}: no such folder; make one with medaug prepare",
        ),
    ):
        refused = medaug(*look, *asked)
        assert (refused.code, refused.err) == (2, f"medaug: {message}\n"), refused
    alone = medaug("explore", tiny_run / "model.safetensors", "--reconstruct", "--device", "cpu")
    assert (alone.code, alone.err) == (
        2,
        "medaug: cache/pancreas-32px-400mm: the cache of this run is not there; name it with "
        "--cache, or make it with medaug prepare\n",
    )
    everywhere = medaug(*look, "--attribute", "pancreas", "--cache", phantom_cache)
    assert everywhere.code == 2
    assert "needs slices with and without it" in everywhere.err
    assert list(tmp_path.iterdir()) == []


def test_explore_tells_how_probable_unseen_pictures_are(
    medaug: Medaug, tiny_run: Path, tmp_path: Path
) -> None:
    train = ("train", "--data", write_digits(tmp_path / "digits"), "--model", "vae", "--images", 32)
    small = ("--set", "train.batch=8", "--set", "model.width=8", "--set", "model.prior=gaussian")
    assert medaug(*train, *small, "--run", "run", "--device", "cpu").code == 0
    ask = ("explore", "run", "--likelihood", "--rows", 4)
    found = medaug(*ask, "--anneal", 3, "--json")
    assert found.code == 0, found.err
    assert (found.json["n"], found.json["dimensions"]) == (4, 784)
    assert found.json["elbo"] < found.json["iwae"]
    assert math.isfinite(found.json["ais"])
    assert medaug(*ask, "--anneal", 3, "--json").json == found.json
    assert medaug(*ask, "--anneal", 6, "--json").json["ais"] != found.json["ais"]
    told = medaug(*ask, "--anneal", 3)
    assert told.out.startswith("log p(x) of 4 pictures of 784 numbers, ")
    assert f"ELBO              {found.json['elbo']:.2f}\n" in told.out
    would = medaug(*ask, "--dry-run")
    assert would.out == "would measure log p(x) of 4 held-out slices, nothing is written\n"
    for words, said in (
        ((*ask, "--anneal", 0), "anneal must be at least 1, got 0"),
        (("explore", tiny_run, "--likelihood", "--rows", 2), "but spatial_vaegan"),
    ):
        refused = medaug(*words)
        assert refused.code == 2
        assert said in refused.err
