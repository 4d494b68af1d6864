"""Imports run downward only, without cycles, and importing medaug is light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import medaug

PACKAGE = Path(medaug.__file__).parent
ROOT = Path(__file__).parents[1]

LAYERS = [
    {"__main__"},
    {"cli"},
    {"evaluation", "monai", "torchio"},
    {"transforms"},
    {"synthesis"},
    {"training"},
    {"models", "data"},
    {"runtime"},
    {"core"},
]
"""Packages and root modules; each may import those of the sets after its own."""


def dotted(path: Path) -> str:
    """The name of a module below ``medaug``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(p): p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"}


@cache
def imports(module: str) -> frozenset[str]:
    """The modules below ``medaug`` that ``module`` imports, also inside functions."""

    def found() -> Iterator[str]:
        for node in ast.walk(ast.parse(MODULES[module].read_text())):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("medaug."):
                base = (node.module or "").removeprefix("medaug").removeprefix(".")
                for name in node.names:
                    full = f"{base}.{name.name}".removeprefix(".")
                    yield full if full in MODULES else base
            elif isinstance(node, ast.Import):
                names = (n.name for n in node.names if n.name.startswith("medaug."))
                yield from (name.removeprefix("medaug.") for name in names)

    return frozenset(name for name in found() if name in MODULES and name != module)


def layer(module: str) -> int:
    return next(n for n, names in enumerate(LAYERS) if module.split(".")[0] in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downward(module: str) -> None:
    above = [
        there
        for there in imports(module)
        if there.split(".")[0] != module.split(".")[0] and layer(there) <= layer(module)
    ]
    assert not above, f"{module} imports {above}, not below it"


def test_no_module_is_imported_by_what_it_imports() -> None:
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()


def test_the_house_has_few_rooms_and_few_doors() -> None:
    rooms = {name.split(".")[0] for name in MODULES}
    doors = {
        (module.split(".")[0], there.split(".")[0])
        for module in MODULES
        for there in imports(module)
    }
    assert rooms == set().union(*LAYERS)
    assert {p.name for p in PACKAGE.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "monai.py",
        "torchio.py",
    }
    assert sum(here != there for here, there in doors) <= 60


def test_a_file_holds_one_idea() -> None:
    """At most 600 lines; in the product at least 30, but for the faces of packages."""
    scripts = [p for p in (ROOT / "scripts").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    paths = [*MODULES.values(), *(ROOT / "tests").rglob("*.py"), *scripts]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert {name: n for name, n in lengths.items() if n > 600} == {}


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
