"""Imports run downward only, and importing medaug is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import medaug

PACKAGE = Path(medaug.__file__).parent

# fmt: off
LAYERS = [
    {"__main__"},
    {"cli"},
    {"demo", "inspection"},
    {"workflow", "monai", "torchio", "evaluate.downstream", "quality"},
    {"downloads", "evaluate", "explore", "splits", "synthesis", "transforms", "train"},
    {"claim", "job"},
    {"stacks"},
    {"capture"},
    {"rounds", "generator", "journal", "mixing", "exporting", "supply"},
    {"drawing", "redrawing", "rows"},
    {"optim", "private", "trained"},
    {"compiling"},
    {"models", "preview", "filter"},
    {"duels", "networks", "penalties", "writers", "evaluate.segmenter"},
    {"augment", "layouts", "losses"},
    {"data.feed", "checkpoint", "run", "device"},
    {"memory"},
    {"codec", "data"},
    {"geometry", "tensors", "across"},
    {"ignoring", "modality"},
    {"types"},
    {"config", "registry", "progress", "files", "seeds", "distributed", "starved", "stopping"},
    {"meeting", "plain_yaml", "text", "zips"},
    {"errors"},
]
# fmt: on
OPEN = {
    "config",
    "registry",
    "errors",
    "files",
    "seeds",
    "progress",
    "types",
    "tensors",
    "device",
    "across",
    "distributed",
    "starved",
    "text",
}  # fmt: skip
"""May be imported from anywhere."""


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if module in names:
            return number
    return layer(module.rpartition(".")[0])


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medaug."):
            found.add(node.module.removeprefix("medaug."))
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("medaug.") for a in node.names if a.name.startswith("medaug.")
            }
    return found


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_run_downward(path: Path) -> None:
    here = dotted(path)
    for there in imports(path):
        if there.split(".")[0] in OPEN or there.split(".")[0] == here.split(".")[0]:
            continue
        assert layer(here) < layer(there), f"{here} imports {there}, which is not below it"


def test_no_file_is_longer_than_400_lines() -> None:
    root = Path(__file__).parents[1]
    code = (p for p in (root / "scripts").rglob("*") if p.is_file() and p.suffix != ".pyc")
    paths = [*modules(), *(root / "tests").rglob("*.py"), *code]
    lengths = {str(path): len(path.read_text().splitlines()) for path in paths}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


@pytest.mark.parametrize("statement", ["import medaug", "import medaug.cli"])
def test_import_is_light(statement: str) -> None:
    code = f"{statement}; import sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "torch",
        "monai",
        "torchio",
        "SimpleITK",
        "nibabel",
        "numpy",
        "pydantic",
        "matplotlib",
        "urllib3",
    }
    assert heavy.isdisjoint(loaded)


def test_public_names_are_exactly_all() -> None:
    from medaug import _HOME, _MODULES

    assert sorted(medaug.__all__) == sorted({*_HOME, *_MODULES, "__version__"})
    for name in medaug.__all__:
        assert getattr(medaug, name) is not None


def test_a_public_function_is_not_hidden_by_a_module_of_its_name() -> None:
    code = (
        "import importlib, medaug;"
        "[importlib.import_module(home) for home in medaug._HOME.values()];"
        "assert all(callable(getattr(medaug, name)) for name in medaug._HOME), 'hidden'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_runs_as_a_module() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "medaug", "--version"], check=True, capture_output=True, text=True
    )
    assert told.stdout.strip() == medaug.__version__


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        medaug.nonsense  # noqa: B018
