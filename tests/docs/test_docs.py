"""Every model has its page, picture and presets; tables of other pages say what the code says."""

import re
from importlib import import_module

import pytest

from medaug.cli.console import INCOMPLETE, MISTAKE
from medaug.core.config import preset_folder, presets, read_yaml
from medaug.core.registry import MODELS
from medaug.evaluation.families import FAMILIES
from medaug.runtime.signals import INTERRUPTED, PREEMPTED
from medaug.synthesis.manifest import COLUMNS

DOCS = preset_folder().parent / "docs" / "models"
NAMES = list(MODELS)


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


PRESETS = [(name, preset) for name in NAMES for preset in presets(name)]


def test_all_models_but_two_have_both_presets() -> None:
    alone = {name: presets(name) for name in NAMES if presets(name) != ["author", "modern"]}
    assert alone == {"vaegan": ["author"], "spatial_vaegan": ["modern"]}


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_is_of_its_name(name: str, preset: str) -> None:
    settings = read_yaml(preset_folder() / f"{name}-{preset}.yaml")
    assert settings["model"]["name"] == name
    assert settings["model"]["preset"] == preset


def section(page: str, title: str) -> str:
    text = (DOCS.parent / page).read_text()
    return re.split(r"^#+ ", text.partition(f"# {title}\n")[2], maxsplit=1, flags=re.M)[0]


def test_every_column_of_the_manifest_has_a_row_in_order() -> None:
    cells = re.findall(r"^\| (`.*?`) \|", section("formats.md", "manifest.csv"), re.M)
    assert tuple(re.findall(r"`(\w+)`", " ".join(cells))) == COLUMNS


def test_every_exit_status_has_a_row() -> None:
    rows = re.findall(r"^\| (\d+) \|", section("formats.md", "Exit status"), re.M)
    assert [int(row) for row in rows] == [0, INCOMPLETE, MISTAKE, PREEMPTED, INTERRUPTED]


def test_the_five_figures_to_read_first_are_one_a_part_with_its_bound() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section("report.md", "Five figures to read first").splitlines()
        if line.startswith("| `")
    ]
    names = [re.findall(r"`([\w.]+)`", row[0])[0] for row in rows]
    assert [name.partition(".")[0] for name in names] == list(FAMILIES)
    for name, row in zip(names, rows, strict=True):
        bound = import_module(f"medaug.evaluation.families.{name.partition('.')[0]}").BOUNDS[name]
        limit = bound.most if bound.least is None else bound.least
        end = {"ratio": " of the real value", "difference": " below the real value", "value": ""}
        side = "most" if bound.least is None or bound.of == "difference" else "least"
        assert row[2] == f"at {side} {abs(limit):g}{end[bound.of]}"


def test_links_between_pages_lead_somewhere() -> None:
    top = DOCS.parents[1]
    for page in [top / "README.md", top / "CONTRIBUTING.md", *DOCS.parent.rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for target, place in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", page.read_text()):
            other = page.parent / target if target else page
            titles = re.findall(r"^#+ (.+)$", other.read_text(), re.M)
            known = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert place in known, f"{page.name}: {target}#{place}"


def test_the_index_names_them_all() -> None:
    index = (DOCS / "README.md").read_text()
    assert set(re.findall(r"^\| \[(\w+)\]\(", index, re.M)) == set(NAMES)
