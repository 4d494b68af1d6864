"""Every model has its page, its picture and its two presets, and the index names them all."""

import re

import pytest

from medaug.config import preset_folder, read_yaml
from medaug.registry import MODELS

DOCS = preset_folder().parent / "docs" / "models"
NAMES = [name for name in MODELS if "." not in name]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_a_page_with_a_picture(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    for part in ("**Deviations.**", "**Healthy.**", "**Failing.**"):
        assert part in page
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (DOCS / picture).stat().st_size > 1000
    for link in re.findall(r"[^!]\[.*?\]\((.*?)\)", page):
        assert (DOCS / link).exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", ["author", "modern"])
def test_every_model_has_both_presets(name: str, preset: str) -> None:
    settings = read_yaml(preset_folder() / f"{name}-{preset}.yaml")
    assert settings["model"]["name"] == name
    assert settings["model"]["preset"] == preset


def test_the_index_names_them_all() -> None:
    index = (DOCS / "README.md").read_text()
    assert set(re.findall(r"^\| \[(\w+)\]\(", index, re.M)) == set(NAMES)
