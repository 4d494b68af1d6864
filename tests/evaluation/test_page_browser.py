"""How the page of a report lies on a screen and on paper, in a real browser."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.report_pages import whole_page


def chromium() -> str | None:
    """A browser of this machine."""
    named = os.environ.get("MEDAUG_CHROMIUM")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return named or next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine; name one in MEDAUG_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_page(tmp_path_factory.mktemp("page"))


@pytest.fixture
def visit(browser: Any, page: Path) -> Iterator[Any]:
    """Opens the page; says at the end that there was no console line and no request."""
    seen: list[str] = []
    contexts = []

    def see(width: int, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda line: seen.append(f"console: {line.text}"))
        tab.on("pageerror", lambda error: seen.append(f"error: {error}"))
        tab.on(
            "request",
            lambda r: None if r.url.startswith(("data:", page.as_uri())) else seen.append(r.url),
        )
        tab.goto(page.as_uri())
        return tab

    yield see
    for context in contexts:
        context.close()
    assert seen == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out_and_all_pictures_show(visit: Any, width: int) -> None:
    tab = visit(width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    out = tab.evaluate(
        """() => [...document.querySelectorAll("body *")].filter(e => {
            const box = e.getBoundingClientRect();
            return box.width && box.right > innerWidth + 1 && !e.closest(".scroll, pre, nav, .skip")
        }).map(e => e.tagName + "." + e.className)"""
    )
    assert out == []
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("[...document.images].every(i => i.width >= 50)")
    small = tab.evaluate(
        """() => [...document.querySelectorAll("p, li, dd, dt, td, th")].filter(
            e => e.innerText && parseFloat(getComputedStyle(e).fontSize) < 12).length"""
    )
    assert small == 0


CONTRAST = """() => {
    const parse = c => c.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92
            : ((v + .055) / 1.055) ** 2.4);
        return .2126 * x + .7152 * y + .0722 * z;
    };
    const behind = e => {
        for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c;
        }
    };
    const found = [];
    for (const e of document.querySelectorAll("body *")) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
        const style = getComputedStyle(e);
        const front = e.closest("svg") ? style.fill : style.color;
        const [a, b] = [light(parse(front)), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + .05) / (b + .05);
        if (ratio < 4.5) found.push(`${e.tagName}.${e.getAttribute("class")} ${ratio.toFixed(2)}`);
    }
    return [...new Set(found)];
}"""


def test_the_bars_of_a_figure_share_one_scale(visit: Any) -> None:
    widths = visit(360).evaluate(
        """() => [...document.querySelectorAll(".figure dl")].map(
            list => [...list.querySelectorAll(".bar")].map(
                bar => bar.getBoundingClientRect().width))"""
    )
    assert len(widths) == 6
    assert all(max(pair) - min(pair) < 1 and min(pair) > 60 for pair in widths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(visit: Any, scheme: str) -> None:
    tab = visit(1280, scheme)
    assert tab.evaluate(CONTRAST) == []
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 600) == (scheme == "light")


def test_it_prints_in_black_on_white_also_from_a_dark_screen(visit: Any) -> None:
    tab = visit(1280, "dark")
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate(CONTRAST) == []
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    printed = tab.pdf(format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 2


def test_the_keyboard_reaches_every_link_and_what_scrolls(visit: Any) -> None:
    tab = visit(360)
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate("document.activeElement.getAttribute('href') || "
                         "document.activeElement.className || document.activeElement.tagName")
        )  # fmt: skip
        if "PRE" in reached:
            break
    assert reached[0] == "#main"
    assert {"#privacy", "#downstream", "scroll", "PRE"} <= set(reached)
    tab.keyboard.press("Shift+Tab")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_no_two_words_of_a_plot_lie_on_each_other(visit: Any) -> None:
    tab = visit(360)
    clashes = tab.evaluate(
        """() => [...document.querySelectorAll("svg.plot")].flatMap(plot => {
            const words = [...plot.querySelectorAll("text")].filter(t => t.textContent.trim());
            const boxes = words.map(t => t.getBoundingClientRect());
            return boxes.flatMap((a, i) => boxes.slice(i + 1).map((b, j) =>
                a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1
                && b.top < a.bottom - 1
                    ? words[i].textContent + " / " + words[i + 1 + j].textContent : null));
        }).filter(Boolean)"""
    )
    assert clashes == []
