"""What exists, by name, with one line each; importing this loads nothing heavy."""

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from medaug.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A component by its public name: where it lives and what it is, in one line."""

    name: str
    target: str
    summary: str

    def load(self) -> Any:
        """Import and return the component."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


def _table(*rows: tuple[str, str, str]) -> dict[str, Entry]:
    return {name: Entry(name, target, summary) for name, target, summary in rows}


# fmt: off
SOURCES = _table(
    ("pancreas",      "medaug.data.pancreas:PancreasCT", "TCIA Pancreas-CT: DICOM series and NIfTI labels, 80 scans"),
    ("mnist",         "medaug.data.idx:Idx",             "MNIST digits, four idx files, 28 x 28"),
    ("fashion-mnist", "medaug.data.idx:Idx",             "Fashion-MNIST clothes, four idx files, 28 x 28"),
    ("nifti",         "medaug.data.collections:NiftiFolder", "a folder of NIfTI images and label maps"),
    ("phantom",       "medaug.data.phantom:Phantom",     "procedural abdomens, written and read in the Pancreas-CT layout"),
)

MODELS = _table(
    ("vaegan",        "medaug.models.vaegan:VAEGAN",  "VAE/GAN (Larsen et al. 2016): a learned distance in place of pixel error"),
    ("vaegan.phased", "medaug.models.phased:Phased",  "VAE/GAN on a code grid: autoencode, sharpen, then learn the codes by a flow"),
    ("wgan_gp",       "medaug.models.wgan_gp:WGANGP", "WGAN-GP (Gulrajani et al. 2017): a critic with a gradient penalty"),
)

WRITERS = _table(
    ("nifti", "medaug.writers.nifti:Nifti", "NIfTI in the nnU-Net v2 layout: HU, label ids, true affine"),
    ("png",   "medaug.writers.png:Png",     "8-bit PNG, for pictures and for looking"),
)
# fmt: on


def lookup(table: dict[str, Entry], name: str, kind: str) -> Entry:
    """The entry called ``name``.

    Raises:
        ConfigError: no such name; the message suggests the nearest one.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{kind} {name!r} is not known{hint} (known: {', '.join(table)})")
