"""Where the masks of layout mode come from: real ones deformed, a run of masks alone, a folder.

A layout map holds the ids of labels and, where the run was trained with them, of tissues
(``medaug.data.feed.tissues``).  Map i is a function of (source, seed, i, attempt).
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Layouts(Protocol):
    """A source of layout maps."""

    @property
    def fingerprint(self) -> str:
        """A hash of what the maps are made from."""
        ...

    @property
    def how(self) -> str:
        """What a map is, in words for the reader of a manifest."""
        ...

    def maps(self, seed: int, indices: Sequence[int], attempt: int = 0) -> Tensor:
        """Layout maps of samples ``indices``, uint8 (n, h, w) on the CPU.

        ``attempt`` counts how often a sample was refused and is drawn anew.
        """
        ...
