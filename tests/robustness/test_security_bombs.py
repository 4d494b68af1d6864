"""Files that announce or unpack to terabytes are refused in a sentence, in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import bombs


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each bomb in a process that may take half a gigabyte."""
    folder = tmp_path_factory.mktemp("bombs")
    bombs.write(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bombs", str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: told for name, told, _ in map(json.loads, done.stdout.splitlines())}


REFUSED = {"DataError", "WeightsError", "ConfigError", "ValueError"}


def test_every_bomb_is_refused_in_a_sentence_and_none_explodes(outcomes: dict[str, str]) -> None:
    assert len(outcomes) >= 49
    odd = {name: told for name, told in outcomes.items() if told.partition(":")[0] not in REFUSED}
    assert odd == {}
    assert {told for told in outcomes.values() if "\n" in told} == set()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nifti/terabytes.nii.gz", "announces 32000 x 32000 x 1000 voxels"),
        ("nifti/lies.nii.gz", "more than it can hold"),
        ("nifti/extension.nii.gz", "header extensions"),
        ("nifti/surfaces.nii", "is a CIFTI file"),
        ("itk/packed.nrrd", "announces 30000 x 30000 x 3000 voxels"),
        ("idx/wraps", "announces 2147483648 x 2147483648 x 4"),
        ("idx/zeros.gz", "announces 4 x 32768 x 32768"),
        ("dicom/deflated.dcm", "inflates to more than"),
        ("series/many", "voxels, accepted are"),
        ("weights/deep", "not a safetensors file"),
        ("yaml/laughs", "its aliases unfold to more than"),
        ("yaml/merges", "its aliases unfold to more than"),
        ("json/deep", "nested too deeply"),
    ],
)
def test_the_reason_is_told(outcomes: dict[str, str], name: str, reason: str) -> None:
    assert reason in outcomes[name]
