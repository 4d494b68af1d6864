"""The verdicts as one HTML file that needs no other: no script, no request, pictures inside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from medaug.data.checks import CHECKS, Verdict
from medaug.data.quality.survey import Judged
from medaug.runtime.html import data_uri, framed

_SIGNS: dict[Verdict, str] = {
    "ok": "\N{CHECK MARK}",
    "doubtful": "?",
    "refused": "\N{MULTIPLICATION X}",
}


def render(name: str, judged: Sequence[Judged], excluded: Mapping[str, str]) -> str:
    """The page of the source called ``name``; no file of the user is named in it."""
    counts = Counter(one.verdict for one in judged)
    return framed(
        Path(__file__).parent,
        name=name,
        counts={verdict: counts[verdict] for verdict in _SIGNS},
        signs=_SIGNS,
        checks=CHECKS,
        excluded=excluded,
        scans=[
            {
                "case": one.handed_on,
                "verdict": one.verdict,
                "size": one.size,
                "reasons": one.nameless,
                "said": {finding.check: finding.verdict for finding in one.findings},
                "pictures": [
                    {
                        "src": data_uri(picture),
                        "alt": f"{one.handed_on}, {title}",
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
