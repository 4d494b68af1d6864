"""The page about transforms names every transform, and its snippets run."""

import re
from pathlib import Path

import pytest

import medaug.monai
import medaug.torchio

PAGE = (Path(__file__).parents[2] / "docs" / "transforms.md").read_text()


def test_every_transform_is_in_the_table() -> None:
    named = set(re.findall(r"^\| `(Random\w+)` \| `(Rand\w+d)` \|", PAGE, re.M))
    torchio, monai = zip(*named, strict=True)
    assert set(torchio) == {n for n in medaug.torchio.__all__ if n.startswith("Random")}
    assert set(monai) == {n for n in medaug.monai.__all__ if n.startswith("Rand")}


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medaug.synthesis.synthesize import synthesize
    from tests.support.toy import Toy

    monkeypatch.chdir(tmp_path)
    synthesize(Toy(), 2, tmp_path / "nifti", uncertainty=1)
    synthesize(Toy(), 2, tmp_path / "nnUNet_raw" / "Dataset001_CT", uncertainty=1)
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(snippet, {})
