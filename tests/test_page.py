"""The page of a report: what it says, that it asks nobody, and how it lies on a screen."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from medaug.evaluate.figures import Bound, Curve, Family, Figure, Picture
from medaug.evaluate.page import render
from medaug.evaluate.page.bars import WIDTH, accepted, figure_bars
from medaug.evaluate.page.curves import axis, curve_svg, short
from medaug.evaluate.page.pictures import data_uri, gallery
from medaug.evaluate.page.words import bound_words, number
from medaug.evaluate.training import POINTS, training_curves
from medaug.evaluate.verdict import of_all, of_family, title

EVIL = "<script>alert('x')</script> & \"more\""


def figure(name: str, value: float, real: float | None = 1.0, **more: Any) -> Figure:
    sentence = "How far the slices are from real ones; far more than the real bar would be bad."
    return Figure(name, value, real, sentence, **{"n": 500, "n_real": 120, **more})


def tile(seed: int, colour: bool = False) -> np.ndarray:
    """A made-up slice at 64 pixels: a body with organs and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    grey = np.where((x / 0.85) ** 2 + (y / 0.7) ** 2 < 1, 120, 5) + rng.normal(0, 9, (64, 64))
    spot = (x - rng.uniform(-0.3, 0.3)) ** 2 + (y - 0.1) ** 2 < 0.06
    grey[spot] = 190
    whole = grey.clip(0, 255).astype(np.uint8)
    if not colour:
        return whole
    both = np.repeat(whole[..., None], 3, 2)
    both[spot] = (255, 196, 0)
    return both


def families() -> list[Family]:
    rng = np.random.default_rng(0)
    cloud = {
        name: (rng.normal(shift, 1, 80).tolist(), rng.normal(0, 1, 80).tolist())
        for name, shift in (("synthetic", 0.3), ("training", 0.0), ("held out", 0.0))
    }
    x = np.linspace(0, 1, 50).tolist()
    roc = {"distance": (x, [v**0.8 for v in x]), "chance": (x, x)}
    fidelity = Family(
        "fidelity",
        [
            figure(
                "fidelity.frechet.random_convolutions", 14.2, 11.9, low=13.1, high=15.6, seed=0,
                extractor="fixed random convolutions 1", bound=Bound(most=2.0, of="ratio"),
            ),
            figure("fidelity.mmd_rbf.encoder", -0.0012, 0.0008, low=-0.004, high=0.003),
            figure("fidelity.mean_hu", 3.2, 1.1, unit="HU", bound=Bound(-10, 10, "difference")),
        ],
        curves=[Curve("Feature map", "Each dot is a slice; the clouds should lie on each other.",
                      "first axis", "second axis", cloud)],
    )  # fmt: skip
    privacy = Family(
        "privacy",
        [
            figure("privacy.auc", 0.61, 0.5, bound=Bound(most=0.55)),
            figure("privacy.closer_to_training", 0.52, None, bound=Bound(most=0.6)),
        ],
        [
            Picture("Nearest pairs", "Left synthetic, right its nearest training slice.",
                    [[tile(i), tile(i + 50)] for i in range(4)], [f"{i}. pair" for i in range(4)]),
        ],
        [Curve("Membership", "The diagonal is chance.", "false positives", "true positives", roc)],
        skipped=[f"Likelihood: {EVIL}."],
    )  # fmt: skip
    anatomy = Family("anatomy", [figure("anatomy.area_mm2", 640, 655, unit="mm2")])
    return [fidelity, anatomy, privacy]


def content(parts: list[Family], **more: Any) -> dict[str, Any]:
    whole = of_all({family.name: of_family(family) for family in parts})
    return {
        "passed": whole.passed,
        "verdict": whole.sentence,
        "judged": {"what": "500 slices drawn from the run runs/phantom", "weights": "a" * 64},
        "against": {
            "cache": "cache/phantom-64px-360mm",
            "fingerprint": "0123456789abcdef0123",
            "train": [f"PANCREAS_{i:04d}" for i in range(1, 17)],
            "heldout": [f"PANCREAS_{i:04d}" for i in range(17, 21)],
        },
        "settings": {"window_hu": [-160, 240], "size": 64, "pixel_mm": 5.625, "slices": 5000,
                     "labels": ["pancreas"], "seed": 0},
        "versions": {"medaug": "0.1.0", "torch": "2.11.0"},
        "reproduce": "medaug evaluate --out report --run runs/phantom-vaegan --seed 0 "
                     "--set 'evaluate.bounds.privacy.auc={\"most\": 0.55}'",
        "downstream": None,
        **more,
    }  # fmt: skip


def study() -> dict[str, Any]:
    def span(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.012, "high": mean + 0.013}

    def row(n: int, arm: str, role: str, dice: float, verdict: str = "", **more: Any) -> Any:
        compared = {"against": "cutmix", "differences": {"dice": span(0.02)}, "hurt": 2,
                    "cases": 30, "subsets": 3}  # fmt: skip
        beside = compared if role == "synthetic" else None
        scores = {"dice": span(dice), "hd95": span(12.4), "surface_dice": span(0.61)}
        return {"n": n, "arm": arm, "role": role, "scores": scores, "versus_standard": beside,
                "versus_rival": beside, "verdict": verdict, "seconds": 412.3, "skipped": "",
                **more}  # fmt: skip

    return {
        "rows": [
            row(4, "standard", "real", 0.736),
            row(4, "cutmix", "real", 0.74),
            row(4, "joint", "synthetic", 0.757, "helps"),
            row(4, "layout", "synthetic", 0.71, "hurts"),
            row(4, "pseudo", "synthetic", 0.7, skipped="no unlabelled scans", scores={}),
        ],
        "notes": ["Every arm taught the same U-Net for 700 steps."],
    }


def training(tmp: Path) -> list[Curve]:
    tmp.mkdir(parents=True, exist_ok=True)
    lines = [
        f'{{"images": {i * 64}, "images_per_s": 9.5, "vae/pixels": {1 / (i + 1)}, '
        f'"vae/gradient": {0.5 + 0.1 * (i % 7)}, "judge/hinge": {2 - i / 500}}}'
        for i in range(900)
    ]
    (tmp / "metrics.jsonl").write_text("\n".join([*lines, '{"images": 9, "vae/pi']))
    return training_curves(tmp)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it."""
    folder = tmp_path_factory.mktemp("page")
    grid = Picture(
        "Synthetic and real slices", "Drawn at random; masks outlined.",
        [[tile(8 * r + c, colour=True) for c in range(8)] for r in range(3)],
        ["Synthetic slices", "Training slices", "Held out slices"],
    )  # fmt: skip
    parts = families()
    whole = content(parts, downstream=study())
    text = render(whole, parts, [grid], training(folder / "run"))
    path = folder / "index.html"
    path.write_text(text)
    return path


class Outline(HTMLParser):
    """Tags, their attributes, and the headings of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def outline(path: Path) -> list[tuple[str, dict[str, str | None]]]:
    parser = Outline()
    parser.feed(path.read_text())
    return parser.tags


def test_the_page_asks_nobody_and_runs_nothing(page: Path) -> None:
    tags = outline(page)
    assert not {"script", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"{tag} {name}={value}"
        assert not [name for name in attributes if name.startswith("on")]
    style = page.read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [a["content"] for t, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert page.stat().st_size < 1_000_000


def test_words_from_elsewhere_are_escaped(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;more&#34;" in text
    drawn = curve_svg(Curve(EVIL, EVIL, EVIL, EVIL, {EVIL: ([0, 1], [0, 1])}))
    assert "<script" not in drawn


def test_headings_links_and_pictures_are_made_for_everybody(page: Path) -> None:
    tags = outline(page)
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for t, a in tags if t == "a"]
    assert {link[1:] for link in links if link} <= set(ids)
    assert {a["aria-labelledby"] for _, a in tags if "aria-labelledby" in a} <= set(ids)
    alts = [a.get("alt") for t, a in tags if t == "img"]
    assert len(alts) == 24 + 8
    assert all(alts)
    assert len(set(alts)) == len(alts)
    plots = [a for t, a in tags if t == "svg" and a.get("class") == "plot"]
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    assert ("html", {"lang": "en"}) in tags


def test_the_verdict_comes_first_and_each_part_has_its_own(page: Path) -> None:
    text = page.read_text()
    said = "Not within the bounds: privacy; fidelity held."
    assert text.index(said) < text.index('<ul class="cards">') < text.index('id="slices"')
    assert "1 of 2 bounds fails: Auc" not in text  # acronyms are written as such
    assert "1 of 2 bounds fails: AUC." in text
    assert "Both bounds hold." in text
    assert "Told only: no figure of this part has a bound." in text
    assert "Not measured in this report: diversity and uncertainty." in text
    assert text.index('id="privacy.auc"') < text.index('id="privacy.closer_to_training"')


def test_a_failed_figure_is_shown_before_those_that_hold() -> None:
    family = families()[0]
    last = replace(family.figures[2], value=99.0)
    text = render(content([family]), [replace(family, figures=[*family.figures[:2], last])])
    assert text.index(f'id="{last.name}"') < text.index(f'id="{family.figures[0].name}"')


def test_the_downstream_table_says_what_helps(page: Path) -> None:
    text = page.read_text()
    assert "Of 2 arms with synthetic slices, these help: joint (N = 4)." in text
    assert "0.757\n(0.745 to 0.77)" in text
    assert "pseudo, N = 4: no unlabelled scans" in text
    assert 'id="downstream"' not in render(content(families()), families())


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.0, "", "0"),
        (-3.14159, "HU", "\N{MINUS SIGN}3.14 HU"),
        (640.4, "mm2", "640 mm\N{SUPERSCRIPT TWO}"),
        (0.00012, "", "1.20e\N{MINUS SIGN}04"),
        (float("nan"), "HU", "not measured"),
        (float("inf"), "", "infinite"),
    ],
)
def test_numbers_have_three_digits(value: float, unit: str, said: str) -> None:
    assert number(value, unit) == said


def test_bounds_are_said_in_words_and_shown_as_a_range() -> None:
    ratio = figure("a.b", 3.0, 2.0, bound=Bound(most=2.0, of="ratio"))
    assert bound_words(ratio) == "Must be at most 2 times the real one; it is 1.5 times."
    assert accepted(ratio) == (None, 4.0)
    apart = figure("a.b", 3.0, 2.0, bound=Bound(-1.0, 1.0, "difference"))
    assert bound_words(apart).startswith(
        "Must differ from the real one by at least \N{MINUS SIGN}1"
    )
    assert accepted(apart) == (1.0, 3.0)
    assert accepted(figure("a.b", 1.0, -2.0, bound=Bound(most=2.0, of="ratio"))) == (-4.0, None)
    assert accepted(figure("a.b", 1.0, None, bound=Bound(most=2.0, of="ratio"))) == (None, None)


def rect(svg: Markup, name: str) -> tuple[float, float]:
    found = re.search(rf'<rect class="{name}" x="([\d.]+)" width="([\d.]+)"', svg)
    assert found is not None
    return float(found[1]), float(found[2])


def test_bars_are_as_long_as_their_values() -> None:
    bars = figure_bars(figure("a.b", 4.0, 2.0, low=3.0, high=5.0, bound=Bound(most=3.0)))
    (start, long), (other, half) = rect(bars["synthetic"], "synthetic"), rect(bars["real"], "real")
    assert start == other == 0
    assert long == pytest.approx(2 * half, abs=0.2)
    assert rect(bars["synthetic"], "accepted") == (0, pytest.approx(long * 0.75, abs=0.2))
    assert bars["synthetic"].count("whisker") == 3
    below = figure_bars(figure("a.b", -4.0, 2.0))
    start, wide = rect(below["synthetic"], "synthetic")
    assert start + wide == pytest.approx(rect(below["real"], "real")[0], abs=0.2)
    nothing = figure_bars(figure("a.b", float("nan"), 2.0))
    assert 'class="synthetic"' not in nothing["synthetic"]
    assert "real" not in figure_bars(figure("a.b", 1.0, None))
    same = figure_bars(figure("a.b", 0.0, 0.0))["synthetic"]
    assert rect(same, "synthetic")[1] < WIDTH


def test_axes_end_at_round_numbers_and_hold_all_values() -> None:
    assert axis([0.0, 0.93]) == (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0])
    low, high, ticks = axis([-3.0, 17.0])
    assert (low, high) == (-5.0, 20.0)
    assert ticks == [-5, 0, 5, 10, 15, 20]
    assert axis([7.0])[0] < 7 < axis([7.0])[1]
    assert axis([0.0])[0] < 0 < axis([0.0])[1]
    assert [short(v) for v in (0.0, 50_000, 2e6, 0.25, -5)] == [
        "0", "50k", "2M", "0.25", "\N{MINUS SIGN}5",
    ]  # fmt: skip


def test_lines_are_lines_and_clouds_are_dots() -> None:
    line = curve_svg(Curve("a", "", "x", "y", {"one": ([0, 1, 2], [1, float("nan"), 3])}))
    assert line.count("<polyline") == 1
    assert len(re.search(r'points="([^"]*)"', line)[1].split()) == 2  # type: ignore[index]
    cloud = curve_svg(Curve("a", "", "x", "y", {"one": ([2, 0, 1], [1, 2, 3]), "two": ([1], [1])}))
    assert "<polyline" not in cloud
    assert cloud.count("<circle") == 3 + 1 + 1
    assert "Nothing was measured" in curve_svg(Curve("a", "", "", "", {"one": ([], [])}))


def test_pictures_keep_their_pixels_and_stay_small() -> None:
    import base64
    import io

    from PIL import Image

    for cell in (tile(0), tile(1, colour=True)):
        data = base64.b64decode(data_uri(cell).partition(",")[2])
        with Image.open(io.BytesIO(data)) as back:
            assert np.array_equal(np.asarray(back.convert("RGB" if cell.ndim == 3 else "L")), cell)
        assert len(data) < 5000
    noise = np.random.default_rng(0).integers(0, 255, (600, 300, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(base64.b64decode(data_uri(noise).partition(",")[2]))) as back:
        assert back.size == (128, 256)
    many = gallery(Picture("Pairs", "All.", [[tile(0), tile(1)]] * 40))
    assert len(many["rows"]) == 12
    assert many["caption"] == "All. 28 more are not shown."


def test_training_curves_come_from_the_metrics_and_are_thinned(tmp_path: Path) -> None:
    curves = {curve.title: curve for curve in training(tmp_path)}
    assert list(curves) == ["vae: pixels", "vae: gradient", "judge: hinge"]
    x, y = curves["judge: hinge"].lines["hinge"]
    assert POINTS / 2 < len(x) == len(y) <= POINTS
    assert np.mean(x) == pytest.approx(64 * 899 / 2)
    assert np.mean(y) == pytest.approx(2 - 899 / 1000)
    assert training_curves(None) == []
    assert training_curves(tmp_path / "none") == []


def test_names_of_figures_become_titles() -> None:
    assert title("fidelity.frechet.random_convolutions") == "Frechet, random convolutions"
    assert title("fidelity.mmd_rbf.encoder") == "MMD RBF, encoder"


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
