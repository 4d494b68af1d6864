"""The verdicts as one HTML file that needs no other: no script, no request, pictures inside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medaug.data.checks import CHECKS, Verdict
from medaug.evaluate.page.pictures import data_uri
from medaug.quality.survey import Judged
from medaug.text import visible

_SIGNS: dict[Verdict, str] = {
    "ok": "\N{CHECK MARK}",
    "doubtful": "?",
    "refused": "\N{MULTIPLICATION X}",
}


def render(name: str, judged: Sequence[Judged], excluded: Mapping[str, str]) -> str:
    """The page of the source called ``name``; no file of the user is named in it."""
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counts = Counter(one.verdict for one in judged)
    page = env.get_template("page.html").render(
        style=(Path(__file__).parent / "style.css").read_text(),
        name=name,
        counts={verdict: counts[verdict] for verdict in _SIGNS},
        signs=_SIGNS,
        checks=CHECKS,
        excluded=excluded,
        scans=[
            {
                "case": one.case,
                "verdict": one.verdict,
                "size": one.size,
                "reasons": one.nameless,
                "said": {finding.check: finding.verdict for finding in one.findings},
                "pictures": [
                    {
                        "src": data_uri(picture),
                        "alt": f"{one.case}, {title}",
                        "title": title,
                        "height": picture.shape[0],
                        "width": picture.shape[1],
                    }
                    for title, picture in one.pictures
                ],
            }
            for one in judged
        ],
    )
    return visible(page)
