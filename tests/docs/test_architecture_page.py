"""docs/architecture.md names packages, files and functions that exist."""

import re
from pathlib import Path

import pytest

import medaug
from tests.test_layers import LAYERS

PACKAGE = Path(medaug.__file__).parent
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SOURCE = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
STEPS = re.findall(r"^\d+\. `(\S+?\.py)`: (.*?)(?=^\d+\. |\n\n)", PAGE, re.M | re.S)


def test_every_package_has_a_row_and_the_rule_is_the_one_that_is_tested() -> None:
    rows = re.findall(r"^\| `medaug/(\w+)` \|", PAGE, re.M)
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert len(rows) == len(packages)
    assert set(rows) == packages
    rule = re.search(r"`(cli > [^`]*)`", PAGE)[1]
    layers = [set(re.findall(r"\w+", part)) for part in rule.split(">")]
    alone = [names - {"__main__", "monai", "torchio"} for names in LAYERS]
    assert layers == [names for names in alone if names]


def test_every_file_it_names_exists() -> None:
    for path in re.findall(r"`([\w/]+/[\w/]*\.py)`", PAGE):
        assert any((place / path).exists() for place in (PACKAGE, ROOT)), path
    for folder in re.findall(r"`((?:\w+/)+)`", PAGE):
        places = [PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_dir())]
        assert any((place / folder).is_dir() for place in places), folder


@pytest.mark.parametrize(("path", "text"), STEPS, ids=[path for path, _ in STEPS])
def test_every_name_of_a_step_exists(path: str, text: str) -> None:
    assert (PACKAGE / path).exists()
    for name in re.findall(r"`(?:[\w/]+\.)*([A-Za-z]\w+)`", text):
        if name not in ("csv", "npy", "py") and not (PACKAGE / f"{name}.py").exists():
            assert re.search(rf"\b(?:def|class) {name}\b|\b{name}\b *[:=]", SOURCE), name


def test_at_most_nine_files_lead_from_the_command_to_the_optimiser_step() -> None:
    walk = PAGE.partition("## One image")[2].partition("\n## ")[0]
    files = re.findall(r"^\d+\. `(\S+\.py)`", walk, re.M)
    assert files[0] == "cli/train.py"
    assert files[-1] == "training/optimizers.py"
    assert len(set(files)) == len(files) <= 9
