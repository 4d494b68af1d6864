"""What a check says of a scan: a verdict and, unless all is well, the reason in one sentence."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Verdict = Literal["ok", "doubtful", "refused"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From good to bad: a refused scan never enters a cache, a doubtful one does and is told."""


@dataclass(frozen=True)
class Finding:
    """The verdict of one check on one scan.

    Attributes:
        case: the scan's id.
        check: which check: a key of `medaug.data.checks.CHECKS`.
        verdict: ``ok``, ``doubtful`` or ``refused``.
        reason: a sentence; empty where there is nothing to say.
    """

    case: str
    check: str
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.reason or self.verdict}"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict among ``findings``; ``ok`` where there are none."""
    return max((f.verdict for f in findings), key=VERDICTS.index, default="ok")
