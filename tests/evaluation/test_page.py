"""The page of a report: what it says, and that it asks nobody."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup

from medaug.evaluation.figures import Bound, Curve
from medaug.evaluation.page import render
from medaug.evaluation.page.bars import WIDTH, accepted, figure_bars
from medaug.evaluation.page.curves import axis, curve_svg, short
from medaug.evaluation.page.overlays import INFERNO, heated, plain
from medaug.evaluation.page.training_curves import POINTS, training_curves
from medaug.evaluation.page.words import bound_words, number
from medaug.evaluation.verdict import title
from medaug.runtime.html import data_uri, gallery
from medaug.runtime.pictures import Picture
from tests.support.report_pages import EVIL, content, families, figure, tile, training, whole_page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_page(tmp_path_factory.mktemp("page"))


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
    for real in (None, -2.0, 0.0):
        assert accepted(figure("a.b", 1.0, real, bound=Bound(most=2.0, of="ratio"))) == (None, None)


def test_a_ratio_to_nothing_or_to_less_passes_no_bound() -> None:
    for real in (None, -1e-6, 0.0):
        held = figure("a.b", 5.0, real, bound=Bound(most=2.0, of="ratio"))
        assert held.ratio is None
        assert held.passed is False


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


def test_the_colour_map_is_matplotlibs() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    theirs = matplotlib.colormaps["inferno"](np.arange(256), bytes=True)[:, :3]
    assert np.array_equal(INFERNO, theirs)


def test_a_map_lies_over_its_slice_from_dark_to_light() -> None:
    image, window = np.zeros((2, 2), np.int16), (-100.0, 100.0)
    found = heated(image, window, np.array([[0.0, 1.0], [2.0, 5.0]]), 2.0)
    below = plain(image, window)[0, 0]
    assert np.array_equal(found[1, 1], np.rint(0.75 * below + 0.25 * INFERNO[0]))
    assert found[0].tolist() == [INFERNO[-1].tolist()] * 2
    assert np.array_equal(found[1, 0], np.rint(0.375 * below + 0.625 * INFERNO[128]))
