"""docs/api.md is what scripts/api-docs writes: every public name, and nothing of one machine."""

import inspect
import re
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

import medaug

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "api-docs"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = spec_from_loader("api_docs", SourceFileLoader("api_docs", str(SCRIPT)))
    module = module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def page(script: ModuleType) -> str:
    return script.page()


def test_the_page_is_up_to_date(page: str) -> None:
    assert (ROOT / "docs" / "api.md").read_text() == page, "run scripts/api-docs"


def test_it_has_every_public_name(page: str) -> None:
    headings = set(re.findall(r"^### (medaug\.\S+)$", page, re.M))
    for module in (medaug, medaug.data, medaug.torchio, medaug.monai):
        for name in module.__all__:
            if not name.startswith("__") and not inspect.ismodule(getattr(module, name)):
                assert f"{module.__name__}.{name}" in headings


def test_it_has_every_key_of_a_config(script: ModuleType, page: str) -> None:
    from medaug.core.config import Config

    sections = re.split(r"^### ", page.partition("\n## Config\n")[2], flags=re.M)[1:]
    keys = {text.partition("\n")[0]: re.findall(r"^\| `(\w+)`", text, re.M) for text in sections}
    assert keys.keys() == script.SECTIONS.keys()
    assert keys.keys() >= Config.model_fields.keys()
    for name, section in Config.model_fields.items():
        assert keys[name] == list(section.annotation.model_fields)


def test_it_says_nothing_of_a_machine(page: str) -> None:
    assert not re.search(r"0x[0-9a-f]{6,}|\bobject at\b", page)
    assert str(ROOT) not in page
    assert str(Path.home()) not in page or Path.home() == Path("/")


def test_a_page_that_differs_is_refused(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "PAGE", tmp_path / "api.md")
    monkeypatch.setattr(sys, "argv", ["api-docs", "--check"])
    assert script.main() == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["api-docs"])
    assert script.main() == 0
    monkeypatch.setattr(sys, "argv", ["api-docs", "--check"])
    assert script.main() == 0
    script.PAGE.write_text(script.PAGE.read_text() + "\n")
    assert script.main() == 1
    assert "run scripts/api-docs" in capsys.readouterr().err


def test_lint_checks_it() -> None:
    assert "scripts/api-docs --check\n" in (ROOT / "scripts" / "lint").read_text()


def test_signatures_docstrings_and_quoted_types_are_rendered(script: ModuleType) -> None:
    def example(a: "int | None", *rest: str, key: float = 0.5, **others: int) -> "Path":
        """Do it.  Twice.

        Args:
            a: how often,
                or never.
            rest: ``x`` or y.

        Returns:
            A path.
        """

    (text,) = script.entry("example", example)
    assert "example(a: int | None, *rest: str, key: float = 0.5, **others: int) -> Path\n" in text
    assert text.endswith(
        "Do it. Twice.\n\nArgs:\n\n- `a`: how often,\n  or never.\n- `rest`: `x` or y.\n\n"
        "Returns:\n\nA path.\n"
    )
