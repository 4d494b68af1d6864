"""Label names of collections whose files carry none, and names written into NIfTI headers.

Names are those of TotalSegmentator where a collection means the same organ, so that one
``--labels`` serves several; ids are the collection's own.  Sources, each checked against a second:

- BTCV: Synapse syn3193805, 13 organs.
- AMOS22: its own ``dataset.json``, 15 organs (Ji et al. 2022, arXiv 2206.08023).
- FLARE22: 13 organs (Ma et al. 2023, arXiv 2308.05862).
- AbdomenCT-1K: 4 organs, both kidneys as one (Ma et al. 2021, arXiv 2010.14808).
- WORD: 16 organs, both adrenal glands as one (Luo et al. 2022, arXiv 2111.02403).
- TotalSegmentator v1, v2 and MR: ``class_map`` of its ``map_to_binary.py`` (Wasserthal et al.
  2023, doi 10.1148/ryai.230024).
"""

import html
import re
from collections.abc import Mapping
from pathlib import Path

from medaug.core.errors import ConfigError, DataError
from medaug.data.formats.volumes import DAMAGE, is_nifti, open_nifti


def _numbered(names: str) -> dict[str, int]:
    return {name: id for id, name in enumerate(names.split(), 1)}


def _sides(*stems: str) -> str:
    return " ".join(f"{stem}_{side}" for stem in stems for side in ("left", "right"))


_SPINE = " ".join(
    f"vertebrae_{level}"
    for level in (
        *(f"L{n}" for n in range(5, 0, -1)),
        *(f"T{n}" for n in range(12, 0, -1)),
        *(f"C{n}" for n in range(7, 0, -1)),
    )
)
_RIBS = " ".join(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13))
_LOBES = (
    "lung_upper_lobe_left lung_lower_lobe_left "
    "lung_upper_lobe_right lung_middle_lobe_right lung_lower_lobe_right"
)
_MUSCLES = _sides("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")
_ILIACS = _sides("iliac_artery", "iliac_vena")
_FIRST = "spleen kidney_right kidney_left gallbladder"

KNOWN: dict[str, dict[str, int]] = {
    "btcv": _numbered(
        f"{_FIRST} esophagus liver stomach aorta inferior_vena_cava portal_vein_and_splenic_vein "
        "pancreas adrenal_gland_right adrenal_gland_left"
    ),
    "amos": _numbered(
        f"{_FIRST} esophagus liver stomach aorta inferior_vena_cava pancreas adrenal_gland_right "
        "adrenal_gland_left duodenum urinary_bladder prostate_or_uterus"
    ),
    "flare22": _numbered(
        "liver kidney_right spleen pancreas aorta inferior_vena_cava adrenal_gland_right "
        "adrenal_gland_left gallbladder esophagus stomach duodenum kidney_left"
    ),
    "abdomenct-1k": _numbered("liver kidney spleen pancreas"),
    "word": _numbered(
        "liver spleen kidney_left kidney_right stomach gallbladder esophagus pancreas duodenum "
        f"colon small_bowel adrenal_gland rectum urinary_bladder {_sides('femur')}"
    ),
    "totalsegmentator-v1": _numbered(
        f"{_FIRST} liver stomach aorta inferior_vena_cava portal_vein_and_splenic_vein pancreas "
        f"adrenal_gland_right adrenal_gland_left {_LOBES} {_SPINE} esophagus trachea "
        "heart_myocardium heart_atrium_left heart_ventricle_left heart_atrium_right "
        f"heart_ventricle_right pulmonary_artery brain {_ILIACS} small_bowel duodenum colon "
        f"{_RIBS} {_sides('humerus', 'scapula', 'clavicula', 'femur', 'hip')} sacrum face "
        f"{_MUSCLES} urinary_bladder"
    ),
    "totalsegmentator-v2": _numbered(
        f"{_FIRST} liver stomach pancreas adrenal_gland_right adrenal_gland_left {_LOBES} "
        "esophagus trachea thyroid_gland small_bowel duodenum colon urinary_bladder prostate "
        f"kidney_cyst_left kidney_cyst_right sacrum vertebrae_S1 {_SPINE} heart aorta "
        "pulmonary_vein brachiocephalic_trunk subclavian_artery_right subclavian_artery_left "
        "common_carotid_artery_right common_carotid_artery_left brachiocephalic_vein_left "
        "brachiocephalic_vein_right atrial_appendage_left superior_vena_cava inferior_vena_cava "
        f"portal_vein_and_splenic_vein {_ILIACS} "
        f"{_sides('humerus', 'scapula', 'clavicula', 'femur', 'hip')} spinal_cord {_MUSCLES} "
        f"brain skull {_RIBS} sternum costal_cartilages"
    ),
    "totalsegmentator-mr": _numbered(
        f"{_FIRST} liver stomach pancreas adrenal_gland_right adrenal_gland_left lung_left "
        "lung_right esophagus small_bowel duodenum colon urinary_bladder prostate sacrum "
        "vertebrae intervertebral_discs spinal_cord heart aorta inferior_vena_cava "
        f"portal_vein_and_splenic_vein {_ILIACS} {_sides('humerus', 'femur', 'hip')} {_MUSCLES} "
        "brain"
    ),
}

_BY_FILE = (
    ("amos", r"amos_\d{4}"),
    ("flare22", r"FLARE22_Tr_\d{4}"),
    ("abdomenct-1k", r"Case_\d{5}"),
    ("word", r"word_\d{4}"),
)
_EMBEDDED = re.compile(rb'<Label Key="(\d+)"[^>]*>(?:<!\[CDATA\[)?([^\]<]+)')


def recognised(ids: list[str]) -> str | None:
    """The collection whose way of naming files all of ``ids`` follow, or None."""
    for name, pattern in _BY_FILE:
        if ids and all(re.fullmatch(pattern, id) for id in ids):
            return name
    return None


def embedded(file: Path) -> dict[str, int]:
    """Name to id of the labels as TotalSegmentator writes them into the header of a NIfTI file."""
    if not is_nifti(file):
        return {}
    try:
        extensions = open_nifti(file).header.extensions
    except DAMAGE:
        return {}  # told where the file is checked
    content = b"".join(bytes(e.content) for e in extensions if e.get_code() == 0)
    return {
        html.unescape(name.decode(errors="replace")).strip(): int(id)
        for id, name in _EMBEDDED.findall(content)
    }


def vocabulary(name: str) -> Mapping[str, int]:
    """Name to id, by the name of a collection or from a json file of names and ids.

    Raises:
        ConfigError: neither.
    """
    if name in KNOWN:
        return KNOWN[name]
    path = Path(name)
    if path.suffix != ".json" or not path.is_file():
        raise ConfigError(
            f"label names {name!r} are not known (known: {', '.join(KNOWN)}, or a json file)"
        )
    from medaug.data.sources.collections.described import described

    try:
        return {label.name: label.id for label in described(path).labels}
    except DataError as error:
        raise ConfigError(str(error)) from error
