"""The torchio transforms in worker processes: however many, however started, queues included."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchio as tio

from medaug.core.errors import ConfigError, DataError
from medaug.synthesis.synthesize import synthesize
from medaug.torchio import RandomSynthesis, Synthesis
from medaug.transforms import pairs
from tests.support.toy import Toy
from tests.transforms.test_torchio import contents, same, subject

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "nifti"
    synthesize(Toy(), 20, folder, uncertainty=1)
    return folder


@pytest.fixture(scope="module")
def bank() -> set[bytes]:
    """Every image of the folder, as it should arrive."""
    samples = [s for number in (0, 1) for s in Toy().block(number, uncertainty=1)][:20]
    return {s.image.T.astype(np.float32).tobytes() + s.label.T.tobytes() for s in samples}


def dataset(source: Path, count: int = 8, **options: Any) -> tio.SubjectsDataset:
    transform = tio.Compose([tio.ToCanonical(), RandomSynthesis(source, p=1, **options)])
    return tio.SubjectsDataset([subject() for _ in range(count)], transform=transform)


def arrived(loader: Any) -> list[bytes]:
    found = []
    for batch in loader:
        for image, label in zip(batch["ct"]["data"], batch["organ"]["data"], strict=True):
            found.append(image.numpy().tobytes() + label.numpy().tobytes())
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("workers", "method"), [(0, None), (1, "fork"), (4, "fork"), (1, "spawn"), (4, "spawn")]
)
def test_pairs_arrive_whole_from_any_workers(
    written: Path, bank: set[bytes], workers: int, method: str | None
) -> None:
    data = dataset(written)

    def epoch() -> list[bytes]:
        torch.manual_seed(1)
        return arrived(
            tio.SubjectsLoader(
                data, batch_size=2, num_workers=workers, multiprocessing_context=method
            )
        )

    first = epoch()
    assert len(first) == 8
    assert set(first) <= bank
    assert len(set(first)) > 2
    if method != "spawn":
        assert epoch() == first


@pytest.mark.parametrize("workers", [0, 2])
def test_a_queue_samples_patches_of_synthetic_slices(
    written: Path, bank: set[bytes], workers: int
) -> None:
    queue = tio.Queue(
        dataset(written, 6),
        max_length=8,
        samples_per_volume=2,
        sampler=tio.data.UniformSampler((6, 5, 1)),
        num_workers=workers,
    )
    patches = [b for batch in tio.SubjectsLoader(queue, batch_size=4) for b in batch["ct"]["data"]]
    assert len(patches) == 12
    wholes = [np.frombuffer(b[: 14 * 12 * 4], np.float32).reshape(14, 12) for b in bank]
    for patch in patches:
        array = patch[0, :, :, 0].numpy()
        assert array.shape == (6, 5)
        windows = (np.lib.stride_tricks.sliding_window_view(w, (6, 5)) for w in wholes)
        assert any((found == array).all(axis=(2, 3)).any() for found in windows)


def test_a_case_from_a_worker_is_replayed_here(written: Path) -> None:
    loader = torch.utils.data.DataLoader(dataset(written, 4), 1, num_workers=2, collate_fn=_first)
    for case in loader:
        step = case.get_applied_transforms()[-1]
        assert isinstance(step, Synthesis)
        assert same(step(subject()), case)
        assert same(case.get_composed_history()(subject()), case)


def _first(cases: list[tio.Subject]) -> tio.Subject:
    return cases[0]


class _Asks:
    """A dataset whose items are what a worker says of drawing on a device."""

    def __init__(self, source: Path, device: str) -> None:
        self.transform = RandomSynthesis(source, p=1, pool=2, device=device)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> str:
        plain = subject()
        try:
            case = self.transform(plain)
        except ConfigError as error:
            assert same(plain, subject())
            return str(error)
        finally:
            assert not torch.cuda.is_initialized()
        return f"drew {tuple(case['ct'].shape)}"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_refuses_a_gpu_before_touching_it(tiny_run: Path, method: str) -> None:
    data: Any = _Asks(tiny_run, "cuda")
    loader: Any = torch.utils.data.DataLoader(
        data, None, num_workers=1, multiprocessing_context=method
    )
    assert list(loader) == [
        "device='cuda': a data loader's worker cannot draw on a GPU; give a folder written by "
        "medaug synthesize, use device='cpu', or set num_workers=0"
    ]


def test_auto_is_the_cpu_in_a_worker_and_a_bank_needs_no_device(
    tiny_run: Path, written: Path
) -> None:
    for source, device, size in (
        (tiny_run, "auto", (1, 32, 32, 1)),
        (written, "cuda", (1, 14, 12, 1)),
    ):
        data: Any = _Asks(source, device)
        loader: Any = torch.utils.data.DataLoader(data, None, num_workers=1)
        assert list(loader) == [f"drew {size}"]


def test_a_missing_bank_file_is_named_and_the_subject_stays(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    shutil.copytree(written, folder)
    (folder / "labelsTr" / "syn_000004.nii.gz").unlink()
    plain = subject()
    with pytest.raises(DataError) as error:
        Synthesis(folder, 4, copy=False)(plain)
    assert str(error.value) == (
        f"{folder / 'labelsTr' / 'syn_000004.nii.gz'}: no such file, though the manifest lists it"
    )
    assert all(
        np.array_equal(a, b) for a, b in zip(contents(plain), contents(subject()), strict=True)
    )
    late = RandomSynthesis(folder, p=1)
    (folder / "manifest.csv").unlink()
    with pytest.raises(DataError, match="holds neither weights nor a manifest"):
        late(plain)
    assert same(plain, subject())


def test_a_bank_file_that_was_changed_is_refused(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    shutil.copytree(written, folder)
    images = folder / "imagesTr"
    kept = (images / "syn_000003_0000.nii.gz").read_bytes()
    (images / "syn_000004_0000.nii.gz").write_bytes(kept)
    with pytest.raises(DataError, match="the files of syn_000004 are not as they were written"):
        Synthesis(folder, 4, copy=False)(subject())
    Synthesis(folder, 3, copy=False)(subject())


def test_a_forked_child_opens_the_model_for_itself(tiny_run: Path) -> None:
    transform = RandomSynthesis(tiny_run, p=1, pool=4)
    transform(subject())
    assert pairs._loaded.cache_info().currsize >= 1
    with multiprocessing.get_context("fork").Pool(1) as pool:
        (case,) = pool.map(transform, [subject()])
    step = case.get_applied_transforms()[-1]
    assert same(step(subject()), case)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_the_main_process_draws_on_a_gpu(tiny_run: Path) -> None:
    case = RandomSynthesis(tiny_run, p=1, pool=4, device="cuda")(subject())
    (step,) = case.get_applied_transforms()
    assert step.device == "cuda"
    assert case["ct"].data.device.type == "cpu"
    assert same(step(subject()), case)
