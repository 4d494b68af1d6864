"""Layers of settings, suggestions for typing errors, counts with suffixes."""

from pathlib import Path

import pytest
import yaml

from medaug.core.batch import Shape
from medaug.core.config import (
    Config,
    ModelConfig,
    current_keys,
    parse_count,
    parse_set,
    preset_folder,
    read_yaml,
    resolve,
)
from medaug.core.errors import ConfigError
from medaug.models import build


def test_later_layers_win_over_the_preset() -> None:
    assert resolve({}).train.batch == 32
    assert resolve({"train": {"batch": 8}}).train.batch == 8
    assert resolve({"train": {"batch": 8}}, {"train": {"batch": 4}}).train.batch == 4
    assert resolve({}).train.images == 2 * 2**20


def test_a_dump_resolves_to_itself() -> None:
    config = resolve({"data": {"augment": {"elastic": 0.02}}, "model": {"width": 8}})
    assert resolve(yaml.safe_load(yaml.safe_dump(config.dump()))) == config


@pytest.mark.parametrize("path", sorted(preset_folder().glob("*-*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_config_builds_and_says_what_to_expect(path: Path) -> None:
    config = resolve(read_yaml(path))
    build(config.model.name, config.model.arguments, Shape(2, 1, 32))
    header = path.read_text().split("\n\n")[0]
    assert header.startswith("# ")
    assert "medaug train" in header or "scripts/" in header
    assert "# Expected:" in header


@pytest.mark.parametrize(
    ("text", "value"), [("64", 64), (5000, 5000), ("50Ki", 51200), ("2Mi", 2097152), ("1.5k", 1500)]
)
def test_counts(text: str, value: int) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "n must be at least 1, got 0"),
        ("-3", "n must be at least 1, got -3"),
        ("many", "n must be a number such as 5000, 50Ki or 2Mi, got 'many'"),
        ("5e3", "n must be a number such as 5000, 50Ki or 2Mi, got '5e3'"),
    ],
)
def test_counts_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_count(text, "n")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"train": {"batchsize": 3}},
            "config train.batchsize is not known; did you mean train.batch",
        ),
        ({"dat": {"size": 3}}, "config dat is not known; did you mean data"),
        (
            {"data": {"size": 4}},
            "config data.size: Input should be greater than or equal to 8, got 4",
        ),
        (
            {"data": {"window_hu": [200, 100]}},
            "config data.window_hu: the lower bound must be below the upper one, "
            "got [200.0, 100.0]",
        ),
        (
            {"data": {"masks": "beside"}},
            "config data.masks: Input should be 'joint', 'layout', 'alone' or 'none', got 'beside'",
        ),
        (
            {"model": {"preset": "moden"}},
            "model.preset 'moden' is not known (known: modern)",
        ),
        ({"model": 7}, "config model: a mapping is wanted, got 7"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(asked: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(asked)
    assert str(caught.value) == message


def test_assignments_are_read_as_yaml() -> None:
    assert parse_set(["data.size=64", "model.phases=[0.2, 0.5]", "data.augment=null"]) == {
        "data": {"size": 64, "augment": None},
        "model": {"phases": [0.2, 0.5]},
    }
    with pytest.raises(ConfigError) as caught:
        parse_set(["data.size"])
    assert str(caught.value) == "--set data.size: write key=value, such as data.size=64"


def test_files_that_are_no_config(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"config {path}: cannot be read (No such file or directory)"
    path.write_text("a: [1,")
    with pytest.raises(ConfigError, match=r"not valid YAML in line 1"):
        read_yaml(path)
    path.write_text("- a")
    with pytest.raises(ConfigError, match="a mapping is wanted, got list"):
        read_yaml(path)


def test_defaults_are_complete() -> None:
    assert Config().data.labels is None
    assert Config().model.name == "spatial_vaegan"


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    assert parse_set(["model.lr=3e-4"]) == {"model": {"lr": 3e-4}}
    (tmp_path / "c.yaml").write_text("model: {lr: 1e-3, name: e4}\n")
    assert read_yaml(tmp_path / "c.yaml") == {"model": {"lr": 1e-3, "name": "e4"}}


@pytest.mark.parametrize(
    "text", ["train: {images: 1%s}" % ("0" * 400), "model: {preset: %s}" % ("x" * 3000),
             "data: {size: %s}" % ("y" * 3000), "data: %s" % ("z" * 3000)]
)  # fmt: skip
def test_a_long_value_is_cut_in_the_sentence(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as told:
        resolve(read_yaml(tmp_path / "config.yaml"))
    assert len(str(told.value)) < 300


@pytest.mark.parametrize("content", [b"a: \xff", b"a: 2020-99-99", b"? [1]\n: 2", b"a: [" * 3000])
def test_bytes_that_mean_nothing_are_refused(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config.yaml: (not|holds)"):
        read_yaml(tmp_path / "config.yaml")


def test_old_names_are_read_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    old = {
        "name": "vaegan",
        "preset": "modern",
        "form": "phased",
        "prior_steps": 8,
        "width": 16,
    }
    now = {"name": "spatial_vaegan", "prior": {"steps": 8}, "width": 16}
    assert resolve({"model": old}) == resolve({"model": now})
    assert capsys.readouterr().err == (
        "config: model.prior_steps is now model.prior.steps; vaegan in its form phased is now the "
        "model spatial_vaegan; the old names are read until version 0.2\n"
    )
    assert resolve({"model": old}, {"model": {"prior": "gmm"}}).model.arguments["prior"] == {
        "name": "gmm",
        "steps": 8,
    }
    gan = {
        "name": "gan",
        "duel": "hinge",
        "judge_lr": 1e-3,
        "judge_turns": 2,
    }
    found = resolve({"model": gan}).model.arguments
    assert (found["adversarial_loss"], found["discriminator_turns"]) == ("hinge", 2)
    assert ModelConfig.model_validate(old).arguments == {"prior": {"steps": 8}, "width": 16}
    capsys.readouterr()
    assert resolve({"model": {"name": "vaegan"}}).model.preset == "author"
    assert resolve({"model": now}) == resolve(resolve({"model": now}).dump())
    assert capsys.readouterr().err == ""


def test_keys_of_a_plugin_are_its_own() -> None:
    model = {"name": "theirs", "duel": 1, "prior": "flat", "form": "phased"}
    assert current_keys(model) == (model, [])
