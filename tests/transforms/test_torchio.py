"""The torchio transforms inside torchio's own machinery."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchio as tio
from torch.utils.data import DataLoader

from medaug.core.errors import ConfigError, DataError
from medaug.synthesis.synthesize import synthesize
from medaug.torchio import RandomSynthesis, Synthesis
from tests.support.toy import Toy

HU = torch.float32


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthesised folder of 20 samples."""
    folder = tmp_path_factory.mktemp("written") / "nifti"
    synthesize(Toy(), 20, folder, uncertainty=1)
    return folder


@pytest.fixture(params=["folder", "run", "weights"])
def source(request: pytest.FixtureRequest) -> Path:
    """Every kind of source."""
    if request.param == "folder":
        return request.getfixturevalue("written")
    run = request.getfixturevalue("tiny_run")
    return run if request.param == "run" else run / "model.safetensors"


def subject(**more: Any) -> tio.Subject:
    shape = (1, 9, 8, 2)
    return tio.Subject(
        ct=tio.ScalarImage(tensor=torch.zeros(shape, dtype=HU), scanner="A"),
        organ=tio.LabelMap(tensor=torch.ones(shape, dtype=torch.uint8)),
        age=61,
        **more,
    )


def contents(case: tio.Subject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return case["ct"].data.numpy(), case["organ"].data.numpy(), case["ct"].affine


def same(a: tio.Subject, b: tio.Subject) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(contents(a), contents(b), strict=True))


def test_a_pair_replaces_image_and_label(source: Path) -> None:
    case = RandomSynthesis(source, p=1, pool=4)(subject())
    image, label = case["ct"], case["organ"]
    assert isinstance(image, tio.ScalarImage)
    assert isinstance(label, tio.LabelMap)
    assert image.shape == label.shape
    assert image.shape[0] == image.shape[3] == 1
    assert image.data.dtype == HU
    assert label.data.dtype == torch.uint8
    assert np.array_equal(image.affine, label.affine)
    assert image.spacing != (1, 1, 1)
    assert -1100 < image.data.min() < image.data.max() <= 3100
    assert set(label.data.unique().tolist()) <= {0, 1}
    assert (case["age"], image["scanner"]) == (61, "A")


def test_values_and_axes_are_those_of_the_sample(written: Path) -> None:
    case = Synthesis(written, 5)(subject())
    sample = Toy().block(0, uncertainty=1)[5]
    assert np.array_equal(case["ct"].data[0, :, :, 0].numpy(), sample.image.T)
    assert np.array_equal(case["organ"].data[0, :, :, 0].numpy(), sample.label.T)
    assert np.allclose(case["ct"].affine, sample.affine)


def test_a_run_and_the_folder_written_from_it_agree(tiny_run: Path, tmp_path: Path) -> None:
    from medaug.synthesis.generator import Generator

    generator = Generator.from_pretrained(tiny_run, device="cpu")
    synthesize(generator, 3, tmp_path / "out", seed=4, uncertainty=1)
    drawn = Synthesis(tiny_run, 2, seed=4)(subject())
    assert same(drawn, Synthesis(tmp_path / "out", 2)(subject()))


def test_probability_is_kept(written: Path) -> None:
    never, always = RandomSynthesis(written, p=0), RandomSynthesis(written, p=1)
    sometimes = RandomSynthesis(written, p=0.3)
    torch.manual_seed(0)
    plain = subject()
    assert all(same(never(plain), plain) for _ in range(20))
    assert not any(same(always(plain), plain) for _ in range(20))
    replaced = sum(not same(sometimes(plain), plain) for _ in range(300))
    assert 60 <= replaced <= 120


def test_draws_cover_the_pool_and_no_more(written: Path) -> None:
    transform = RandomSynthesis(written, p=1)
    seen = {transform(subject()).applied_transforms[-1][1]["index"] for _ in range(200)}
    assert seen == set(range(20))


def test_a_pool_limits_a_run(tiny_run: Path) -> None:
    transform = RandomSynthesis(tiny_run, p=1, pool=3)
    seen = {transform(subject()).applied_transforms[-1][1]["index"] for _ in range(60)}
    assert seen == {0, 1, 2}


def test_a_seed_reproduces_whatever_was_done_before(source: Path) -> None:
    first, second = RandomSynthesis(source, p=0.5, pool=20), RandomSynthesis(source, 0.5, pool=20)
    torch.manual_seed(3)
    cases = [first(subject()) for _ in range(6)]
    after = torch.rand(1)
    second(subject())
    torch.manual_seed(3)
    again = [second(subject()) for _ in range(6)]
    assert all(same(a, b) for a, b in zip(cases, again, strict=True))
    assert torch.equal(after, torch.rand(1))


def test_opening_a_model_does_not_touch_the_global_generator(tiny_run: Path) -> None:
    from medaug.transforms.pairs import _drawn, _loaded

    _drawn.cache_clear()
    _loaded.cache_clear()
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        RandomSynthesis(tiny_run, p=1, pool=4)(subject())
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)


def test_history_names_the_sample_and_replays_it(source: Path) -> None:
    case = RandomSynthesis(source, p=1, pool=4)(subject())
    (step,) = case.history
    assert isinstance(step, Synthesis)
    assert step.fingerprint
    assert same(step(subject()), case)
    assert same(case.get_composed_history()(subject()), case)
    with pytest.warns(RuntimeWarning, match=r"Synthesis|invertible"):
        assert same(case.apply_inverse_transform(), case)


def test_history_is_not_replayed_with_other_weights(written: Path) -> None:
    step = Synthesis(written, 2, fingerprint="0123456789ab")
    with pytest.raises(DataError) as error:
        step(subject())
    assert str(error.value) == (
        f"{written}: has weights {Toy().fingerprint[:12]} now, and sample 2 was drawn with "
        "0123456789ab"
    )


def test_the_input_is_left_alone(written: Path) -> None:
    plain = subject()
    before = copy.deepcopy(plain)
    RandomSynthesis(written, p=1)(plain)
    assert same(plain, before)
    first = Synthesis(written, 1)(plain)
    first["ct"].data.zero_()
    assert Synthesis(written, 1)(plain)["ct"].data.any()


def test_an_image_alone_is_replaced_alone(written: Path) -> None:
    case = RandomSynthesis(written, p=1)(
        tio.Subject(ct=tio.ScalarImage(tensor=torch.zeros(1, 4, 4, 1)))
    )
    assert set(case) == {"ct"}
    assert case["ct"].data.any()
    tensor = RandomSynthesis(written, p=1)(torch.zeros(1, 4, 4, 1))
    assert tensor.shape == (1, 14, 12, 1)


def test_other_entries_stay(written: Path) -> None:
    pet = tio.ScalarImage(tensor=torch.full((1, 3, 3, 3), 7.0))
    case = RandomSynthesis(written, p=1, image="ct")(subject(pet=pet))
    assert torch.equal(case["pet"].data, pet.data)
    assert case["ct"].data.any()
    excluded = RandomSynthesis(written, p=1, exclude=["pet"])(subject(pet=pet))
    assert torch.equal(excluded["pet"].data, pet.data)


def test_types_that_cannot_hold_hu_are_widened(written: Path) -> None:
    case = tio.Subject(ct=tio.ScalarImage(tensor=torch.zeros(1, 4, 4, 1, dtype=torch.uint8)))
    assert RandomSynthesis(written, p=1)(case)["ct"].data.dtype == torch.int16


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        (
            {},
            {"pet": tio.ScalarImage},
            "the subject has several scalar images (ct, pet); say which to replace, such as "
            "image='ct'",
        ),
        (
            {},
            {"tumour": tio.LabelMap},
            "the subject has several label maps (organ, tumour); say which to replace, such as "
            "label='organ'",
        ),
        ({"image": "mr"}, {}, "the subject has no scalar image 'mr' (it has: ct)"),
        ({"label": "ct"}, {}, "the subject has no label map 'ct' (it has: organ)"),
        ({"exclude": ["ct"]}, {}, "the subject has no scalar image to replace"),
    ],
)
def test_what_to_replace_must_be_clear(
    written: Path, options: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    case = subject(**{name: kind(tensor=torch.ones(1, 2, 2, 2)) for name, kind in more.items()})
    with pytest.raises(ConfigError) as error:
        RandomSynthesis(written, p=1, **options)(case)
    assert str(error.value) == message


def test_a_source_without_labels_does_not_orphan_a_label_map(tmp_path: Path) -> None:
    synthesize(Toy("image"), 3, tmp_path / "png", uncertainty=1)
    with pytest.raises(ConfigError) as error:
        RandomSynthesis(tmp_path / "png", p=1)(subject())
    assert str(error.value) == (
        f"{tmp_path / 'png'}: draws no label maps, and the subject's 'organ' would no longer match "
        "its image; exclude=['organ'] leaves it as it is"
    )
    case = RandomSynthesis(tmp_path / "png", p=1, exclude=["organ"])(subject())
    assert case["ct"].data.any()


@pytest.mark.parametrize("kind", ["nothing", "empty", "file"])
def test_what_is_no_source_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "source"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    reason = {
        "nothing": "no such file or folder",
        "empty": "holds neither weights nor a manifest",
        "file": "not a weight file",
    }[kind]
    for transform in (RandomSynthesis, lambda source: Synthesis(source, 0)):
        with pytest.raises(DataError) as error:
            transform(path)
        assert str(error.value) == (
            f"{path}: {reason}; give a run folder, its .safetensors file, or a folder written by "
            "medaug synthesize"
        )


def test_folders_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    synthesize(Toy(), 2, tmp_path / "png", uncertainty=1, format="png")
    with pytest.raises(DataError, match="holds PNG pictures, which have no HU"):
        RandomSynthesis(tmp_path / "png", p=1)(subject())
    (tmp_path / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a folder written by medaug synthesize"):
        RandomSynthesis(tmp_path, p=1)(subject())
    synthesize(Toy(), 2, tmp_path / "shard", uncertainty=1, shard=(1, 2))
    with pytest.raises(DataError, match="its manifest lists no samples"):
        RandomSynthesis(tmp_path / "shard", p=1)(subject())


def test_arguments_out_of_range(written: Path) -> None:
    with pytest.raises(ConfigError, match="pool must be at least 1, got 0"):
        RandomSynthesis(written, pool=0)
    with pytest.raises(ValueError, match="Probability"):
        RandomSynthesis(written, p=1.5)
    with pytest.raises(DataError, match="sample 99 is not in its manifest"):
        Synthesis(written, 99)(subject())


def test_it_travels_by_pickle(source: Path) -> None:
    transform = RandomSynthesis(source, p=1, pool=4, seed=2)
    transform(subject())
    content = pickle.dumps(transform)
    assert len(content) < 2000
    torch.manual_seed(0)
    first = transform(subject())
    torch.manual_seed(0)
    assert same(first, pickle.loads(content)(subject()))


def test_it_works_in_compose_dataset_and_loader_with_two_workers(source: Path) -> None:
    transform = tio.Compose(
        [
            tio.RandomFlip(axes=("LR",)),
            RandomSynthesis(source, p=0.5, pool=4),
            tio.CropOrPad((10, 10, 1)),
        ]
    )
    dataset = tio.SubjectsDataset([subject() for _ in range(8)], transform=transform)

    def epoch() -> list[torch.Tensor]:
        torch.manual_seed(9)
        loader = tio.SubjectsLoader(dataset, batch_size=2, num_workers=2, shuffle=True)
        batches = [(batch["ct"][tio.DATA], batch["organ"][tio.DATA]) for batch in loader]
        return [torch.stack([image, label.float()], 1) for image, label in batches]

    first, second = epoch(), epoch()
    assert [batch.shape for batch in first] == [(2, 2, 1, 10, 10, 1)] * 4
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    synthetic = [bool(case[0].any()) for batch in first for case in batch]
    assert 0 < sum(synthetic) < 8


def test_the_plain_pytorch_loader_collates_it(written: Path) -> None:
    transform = tio.Compose([RandomSynthesis(written, p=1), tio.CropOrPad((10, 10, 1))])
    cases = [transform(subject()) for _ in range(2)]
    tensors = [(case["ct"].data, case["organ"].data) for case in cases]
    images, labels = next(iter(DataLoader(tensors, batch_size=2)))  # type: ignore[arg-type]
    assert images.shape == labels.shape == (2, 1, 10, 10, 1)
