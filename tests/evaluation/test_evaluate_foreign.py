"""``medaug evaluate`` on the folders of other tools: axes, forms and names of labels."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medaug.core.errors import ConfigError
from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.report import gather
from tests.support.evaluated import foreign_folder, settled

pytestmark = pytest.mark.usefixtures("two_parts")


@pytest.fixture
def foreign(phantom_cache: Path, tmp_path: Path) -> Path:
    return foreign_folder(SliceCache.open(phantom_cache), tmp_path / "foreign")


def test_another_tools_volumes_are_turned_and_their_labels_go_by_name(
    foreign: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    evidence = gather(settled(foreign, phantom_cache), tmp_path / "kept")
    assert np.array_equal(evidence.synthetic.images, evidence.heldout.images)
    assert evidence.synthetic.labels is not None
    assert evidence.heldout.labels is not None
    assert np.array_equal(evidence.synthetic.labels, evidence.heldout.labels)
    assert evidence.synthetic.heights.tolist() == evidence.heldout.heights.tolist()


@pytest.mark.parametrize("form", ["nrrd", "mask for each organ", "chosen region"])
def test_every_form_of_labels_gives_the_same_evidence(
    form: str, foreign: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    before = gather(settled(foreign, phantom_cache), tmp_path / "kept").synthetic
    image, label = foreign / "imagesTr" / "a_0000.nii.gz", foreign / "labelsTr" / "a.nii.gz"
    other = tmp_path / "other"
    if form == "nrrd":
        for file in (image, label):
            (other / file.parent.name).mkdir(parents=True)
            name = file.name.replace(".nii.gz", ".nrrd")
            sitk.WriteImage(sitk.ReadImage(str(file)), str(other / file.parent.name / name))
        shutil.copy(foreign / "dataset.json", other)
    elif form == "mask for each organ":
        (other / "a" / "segmentations").mkdir(parents=True)
        shutil.copy(image, other / "a" / "ct.nii.gz")
        shutil.copy(label, other / "a" / "segmentations" / "pancreas.nii.gz")
    else:
        shutil.copytree(foreign, other)
        names = {"background": 0, "pancreas": [7, 8], "duct": 8}
        about = {"labels": names, "regions_class_order": [3, 4]}
        (other / "dataset.json").write_text(json.dumps(about))
    after = gather(settled(other, phantom_cache), tmp_path / "kept2").synthetic
    assert np.array_equal(after.images, before.images)
    assert after.labels is not None
    assert np.array_equal(after.labels, before.labels)


def test_images_without_masks_are_images_only(
    foreign: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    shutil.rmtree(foreign / "labelsTr")
    (foreign / "dataset.json").unlink()
    evidence = gather(settled(foreign, phantom_cache), tmp_path / "kept")
    assert evidence.synthetic.labels is None
    assert evidence.heldout.labels is not None
    whole = SliceCache.open(phantom_cache).cases[evidence.heldout.cases[0]].image
    assert len(evidence.synthetic) == len(whole)


def test_masks_without_names_go_by_the_ids_of_the_cache(
    foreign: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    (foreign / "dataset.json").unlink()
    with pytest.raises(ConfigError, match=r"synthetic masks show label_7, and .* has pancreas"):
        settled(foreign, phantom_cache)
    path = foreign / "labelsTr" / "a.nii.gz"
    mask = nibabel.load(path)
    ones = (np.asarray(mask.dataobj) > 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(ones, mask.affine), path)
    evidence = gather(settled(foreign, phantom_cache), tmp_path / "kept")
    assert evidence.synthetic.names == {"pancreas": 1}
