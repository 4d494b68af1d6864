"""List sources, models and writers by name; importing this loads nothing heavy."""

import difflib
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from medaug.core.errors import ConfigError, shown


@dataclass(frozen=True)
class Entry:
    """A component.

    Attributes:
        name: by which users call it.
        target: ``module:attribute`` of its class or function.
        summary: what it is, in one line.
    """

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
    ("pancreas",      "medaug.data.sources.pancreas:PancreasCT", "TCIA Pancreas-CT: DICOM series and NIfTI labels, 80 scans"),
    ("mnist",         "medaug.data.sources.idx:Idx",             "MNIST digits, four idx files, 28 x 28"),
    ("fashion-mnist", "medaug.data.sources.idx:Idx",             "Fashion-MNIST clothes, four idx files, 28 x 28"),
    ("nifti",         "medaug.data.sources.collections:open_collection", "scans with labels in the layouts of docs/data.md"),
    ("phantom",       "medaug.data.sources.phantom.source:Phantom",     "procedural abdomens, written and read in the Pancreas-CT layout"),
)

MODELS = _table(
    ("vae",           "medaug.models.vae:VAE",            "VAE (Kingma and Welling 2014): reconstruction and KL"),
    ("gan",           "medaug.models.gan:GAN",            "GAN (Goodfellow et al. 2014, DCGAN): one discriminator; relativistic with penalties when modern"),
    ("vae_disl",      "medaug.models.vae_disl:VAEDisL",   "VAE_Dis_l (Larsen et al. 2016): a VAE under the features of a GAN's discriminator at rest"),
    ("vaegan",        "medaug.models.vaegan:VAEGAN",      "VAE/GAN (Larsen et al. 2016): a learned distance in place of pixel error"),
    ("spatial_vaegan", "medaug.models.spatial_vaegan:SpatialVAEGAN", "VAE/GAN on a grid of codes, the default: autoencode, sharpen, learn the codes by a flow"),
    ("wgan",          "medaug.models.wgan:WGAN",          "WGAN (Arjovsky et al. 2017): a critic with clipped weights"),
    ("wgan_gp",       "medaug.models.wgan_gp:WGANGP",     "WGAN-GP (Gulrajani et al. 2017): a critic with a gradient penalty"),
    ("alpha_gan",     "medaug.models.alpha_gan:AlphaGAN", "alpha-GAN (Rosca et al. 2017): an autoencoder with discriminators of images and of codes"),
    ("gvae",          "medaug.models.gvae:GVAE",          "GVAE (Sagar 2020): a VAE with a Wasserstein critic"),
    ("aaae",          "medaug.models.aaae:AAAE",          "AAAE (Xu et al. 2019): an autoencoder, a discriminator of reconstructions, a generator of codes"),
    ("ali",           "medaug.models.ali:ALI",            "ALI (Dumoulin et al. 2017): one discriminator of pairs of image and code"),
    ("alice",         "medaug.models.alice:ALICE",        "ALICE (Li et al. 2017): ALI with cycles"),
    ("wae_mmd",       "medaug.models.wae_mmd:WAEMMD",     "WAE-MMD (Tolstikhin et al. 2018): codes held to the prior by kernels"),
    ("wae_gan",       "medaug.models.wae_gan:WAEGAN",     "WAE-GAN (Tolstikhin et al. 2018): codes held to the prior by an adversary"),
)

WRITERS = _table(
    ("nifti", "medaug.synthesis.writers.nifti:Nifti", "NIfTI in the nnU-Net v2 layout: HU, label ids, true affine"),
    ("dicom", "medaug.synthesis.writers.dicom:Dicom", "DICOM: derived CT or MR and segmentation, marked as synthetic; needs medaug[dicom]"),
    ("png",   "medaug.synthesis.writers.png:Png",     "8-bit PNG, for pictures and for viewing"),
)
# fmt: on


def plugins() -> dict[str, Entry]:
    """Return the models of other installed packages: entry points in the group ``medaug.models``."""
    found = {}
    for point in entry_points(group="medaug.models"):
        package = point.dist.name if point.dist is not None else "another package"
        found[point.name] = Entry(point.name, point.value, f"from {package}")
    return found


def model(name: str) -> Entry:
    """Return the model called ``name``, of medaug or of another package.

    Raises:
        ConfigError: no such model; the message suggests the nearest one.
    """
    return lookup(MODELS if name in MODELS else MODELS | plugins(), name, "model")


def lookup(table: dict[str, Entry], name: str, kind: str) -> Entry:
    """Return the entry called ``name``.

    Args:
        table: of all entries.
        name: as the user wrote it.
        kind: what it is, for the message.

    Raises:
        ConfigError: no such name; the message suggests the nearest one.
    """
    if name in table:
        return table[name]
    known = list(table)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{kind} {shown(name)} is not known{hint} (known: {', '.join(known)})")
