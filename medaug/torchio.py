"""``medaug.torchio``: the transforms for torchio pipelines, for torchio 1 and 2 alike.

Under torchio 1, ``CutMix``, ``CarveMix``, ``CopyPaste``, ``LabelContrast`` and ``Synthesis`` are
what a history keeps.  Under torchio 2 a history keeps parameters instead, which the random
transforms take in ``apply_transform``, so only these exist.
"""

from typing import TYPE_CHECKING

import torchio as _torchio

if TYPE_CHECKING or int(_torchio.__version__.partition(".")[0]) < 2:
    from medaug.transforms.torchio1 import (
        CarveMix,
        CopyPaste,
        CutMix,
        LabelContrast,
        RandomCarveMix,
        RandomCopyPaste,
        RandomCutMix,
        RandomLabelContrast,
        RandomSynthesis,
        Synthesis,
    )

    __all__ = [
        "CarveMix",
        "CopyPaste",
        "CutMix",
        "LabelContrast",
        "RandomCarveMix",
        "RandomCopyPaste",
        "RandomCutMix",
        "RandomLabelContrast",
        "RandomSynthesis",
        "Synthesis",
    ]
else:
    from medaug.transforms.torchio2 import (
        RandomCarveMix,
        RandomCopyPaste,
        RandomCutMix,
        RandomLabelContrast,
        RandomSynthesis,
    )

    __all__ = [
        "RandomCarveMix",
        "RandomCopyPaste",
        "RandomCutMix",
        "RandomLabelContrast",
        "RandomSynthesis",
    ]
