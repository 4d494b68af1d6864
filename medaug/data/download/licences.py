"""Under which terms each data set comes; accepted once, and kept beside the data."""

from dataclasses import dataclass
from pathlib import Path

from medaug.core.errors import ConfigError
from medaug.runtime.files import PART, write_bytes

FILE = "DATA-LICENSE.txt"


@dataclass(frozen=True)
class Licence:
    """The terms of a data set in short, and the text that names them whole."""

    short: str
    text: str


LICENCES = {
    "pancreas": Licence(
        "CC BY 3.0",
        """\
Pancreas-CT: CT of 80 people with the pancreas outlined, from The Cancer Imaging Archive (TCIA).
Creative Commons Attribution 3.0 Unported: https://creativecommons.org/licenses/by/3.0/
Give credit, link to the licence, and say what was changed. TCIA's data usage policy holds too; it
forbids any attempt to find out who the people are:
https://www.cancerimagingarchive.net/data-usage-policies-and-restrictions/
Cite:
- Roth H, Farag A, Turkbey EB, Lu L, Liu J, Summers RM (2016). Data From Pancreas-CT (Version 2).
  The Cancer Imaging Archive. https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU
- Roth HR, Lu L, Farag A, Shin H-C, Liu J, Turkbey EB, Summers RM. DeepOrgan: Multi-level Deep
  Convolutional Networks for Automated Pancreas Segmentation. MICCAI 2015, LNCS 9349, 556-564.
- Clark K, Vendt B, Smith K, et al. The Cancer Imaging Archive (TCIA): Maintaining and Operating a
  Public Information Repository. J Digit Imaging 26(6), 2013, 1045-1057.
""",
    ),
    "mnist": Licence(
        "CC BY-SA 3.0",
        """\
MNIST: 70,000 handwritten digits, by Yann LeCun, Corinna Cortes and Christopher J.C. Burges.
Creative Commons Attribution-ShareAlike 3.0: https://creativecommons.org/licenses/by-sa/3.0/
Give credit, link to the licence, say what was changed, and share what you adapt alike.
Cite: LeCun Y, Bottou L, Bengio Y, Haffner P. Gradient-based learning applied to document
recognition. Proceedings of the IEEE 86(11), 1998, 2278-2324.
""",
    ),
    "fashion-mnist": Licence(
        "MIT",
        """\
Fashion-MNIST: 70,000 pictures of clothes, (c) 2017 Zalando SE, https://tech.zalando.com
MIT licence: https://github.com/zalandoresearch/fashion-mnist/blob/master/LICENSE
Its notice stays with every copy.
Cite: Xiao H, Rasul K, Vollgraf R. Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms. arXiv:1708.07747, 2017.
""",
    ),
}


def licence(data: str) -> Licence:
    """The terms of ``data``.

    Raises:
        ConfigError: nothing of that name can be fetched.
    """
    if data not in LICENCES:
        raise ConfigError(f"download: {data!r} cannot be fetched; known are {', '.join(LICENCES)}")
    return LICENCES[data]


def accepted(data: str, root: Path) -> bool:
    """Whether the terms of ``data`` were accepted for ``root`` before, word for word."""
    try:
        return (root / FILE).read_text() == licence(data).text
    except (OSError, UnicodeDecodeError):
        return False


def accept(data: str, root: Path) -> None:
    """Keep the terms of ``data`` in ``root``; the next command does not ask."""
    for part in root.glob(f".{FILE}.*{PART}"):
        part.unlink(missing_ok=True)
    if accepted(data, root):
        return
    write_bytes(root / FILE, licence(data).text.encode())


def refusal(data: str) -> ConfigError:
    """What is raised where nobody has accepted the terms."""
    return ConfigError(
        f"download {data}: its licence ({LICENCES[data].short}) must be accepted; read it above "
        "and add --yes, or answer on a terminal"
    )
