"""`SliceDataset` hands out what the cache holds, where it lies, in any process."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor, decollate_batch
from monai.data import DataLoader as MonaiLoader
from monai.data import Dataset as MonaiDataset
from monai.transforms import Compose, Flipd, RandGaussianNoised, SaveImaged, ScaleIntensityRanged
from torch.utils.data import DataLoader, Subset, random_split

import medaug
from medaug.core.errors import CacheError, ConfigError, DataError
from medaug.data import SliceDataset, open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.subset import part
from tests.conftest import miniature, write_label
from tests.data.test_changes import write_idx
from tests.support import photographs


@pytest.fixture(scope="module")
def opened(phantom_cache: Path) -> SliceCache:
    return SliceCache.open(phantom_cache)


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans with two labels, the two halves of one organ."""
    root = tmp_path_factory.mktemp("organs")
    (root / "imagesTr").mkdir()
    for number, name in enumerate(("a", "b"), 1):
        hu, mask = miniature(number)
        mask[:, :, 8:] *= 2
        write_label(root / "imagesTr" / f"{name}_0000.nii.gz", hu)
        write_label(root / "labelsTr" / f"{name}.nii.gz", mask)
    (root / "dataset.json").write_text('{"labels": {"background": 0, "head": 1, "tail": 2}}')
    settings = CacheSettings(size=32, fov_mm=300, holdout=0)
    prepare(open_source(str(root)), root / "cache", settings, 0)
    return root / "cache"


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(one[k]), torch.as_tensor(other[k]))
        if k != "case"
        else one[k] == other[k]
        for k in one
    )


@pytest.mark.parametrize("split", ["train", "heldout", "all"])
def test_every_slice_of_a_split_is_there_once(opened, phantom_cache, split):
    data = SliceDataset(phantom_cache, split)
    names = sorted(opened.cases) if split == "all" else opened.split[split]
    assert data.cases == names
    expected = [(name, z) for name in names for z in range(len(opened.cases[name].image))]
    assert [data.place(i) for i in range(len(data))] == expected
    for i, (name, z) in enumerate(expected):
        item, case = data[i], opened.cases[name]
        assert (item["case"], item["z"]) == (name, z)
        assert item["image"].shape == item["label"].shape == (1, 32, 32)
        assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.uint8)
        np.testing.assert_array_equal(item["image"][0], case.image[z])
        np.testing.assert_array_equal(item["label"][0], case.label[z])
        there = item["affine"].numpy() @ [5, 7, 0, 1]
        np.testing.assert_allclose(there, case.affine @ [5, 7, z, 1])


def test_numbers_count_from_either_end_and_ranges_are_data_sets(phantom_cache):
    data = SliceDataset(phantom_cache)
    assert same(data[-1], data[len(data) - 1])
    assert same(data[np.int64(3)], data[3])
    assert isinstance(data[2:9:3], Subset)
    assert [item["z"] for item in data[2:9:3]] == [2, 5, 8]
    for beyond in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match=f"slice {beyond} of {len(data)}"):
            data[beyond]
    assert len(list(data)) == len(data)


def test_several_at_once_are_those_one_by_one(organs):
    data = SliceDataset(organs, "all", transform=lambda item: {**item, "more": 1})
    places = [len(data) - 1, 0, 3, 3, -1]
    several = data.__getitems__(places)
    assert all(same(item, data[i]) for item, i in zip(several, places, strict=True))
    several[2]["image"] += 1
    assert same(several[3], data[3])


def test_what_is_handed_out_may_be_written_to(phantom_cache):
    data = SliceDataset(phantom_cache)
    before = data[4]
    changed = data[4]
    changed["image"] += 1
    changed["label"].fill_(9)
    changed["affine"].fill_(0)
    assert same(data[4], before)


def test_labels_are_chosen_by_name_and_keep_their_ids(organs):
    both, tail = SliceDataset(organs), SliceDataset(organs, labels=["tail"])
    assert (both.labels, tail.labels) == ({"head": 1, "tail": 2}, {"tail": 2})
    assert set(torch.cat([item["label"] for item in both]).unique().tolist()) == {0, 1, 2}
    for all_, one in zip(both, tail, strict=True):
        assert torch.equal(one["label"], torch.where(all_["label"] == 2, 2, 0))
    assert any(item["label"].any() for item in tail)
    assert not any(item["label"].any() for item in SliceDataset(organs, labels=[]))


@pytest.mark.parametrize("labels", [None, ["head"], ["tail"]])
def test_slices_that_show_too_little_are_left_out(organs, labels):
    shown = SliceDataset(organs, labels=labels, min_label_pixels=5)
    every = SliceDataset(organs, labels=labels)
    assert 4 < len(shown) == sum(int(i["label"].count_nonzero() >= 5) for i in every) < len(every)
    assert all(item["label"].count_nonzero() >= 5 for item in shown)
    bare = SliceDataset(organs, labels=labels, min_label_pixels=5, label=False)
    assert [bare.place(i) for i in range(len(bare))] == [shown.place(i) for i in range(len(shown))]


def test_scans_without_a_label_come_only_without(opened, tmp_path):
    first, second, *_ = opened.cases
    mixed = part(opened, tmp_path / "mixed", [first], [second])
    assert SliceDataset(mixed).cases == [first]
    bare = SliceDataset(mixed, label=False)
    assert bare.cases == [first, second]
    assert bare[0].keys() == {"image", "case", "z", "affine"}


def test_what_the_cache_does_not_have_is_refused(organs, opened, tmp_path):
    with pytest.raises(ConfigError, match=r"^split: 'test', accepted are train, heldout, all$"):
        SliceDataset(organs, "test")
    with pytest.raises(ConfigError, match=r"^labels: 'heart' is not in .*there: head, tail\)$"):
        SliceDataset(organs, labels=["heart"])
    with pytest.raises(ConfigError, match=r"^labels: 'head', accepted is a list such as \['head"):
        SliceDataset(organs, labels="head")
    with pytest.raises(DataError, match=r"no slice with a label of split heldout is there$"):
        SliceDataset(organs, "heldout")
    with pytest.raises(DataError, match=r"of split train shows at least 999 pixels of head, tail"):
        SliceDataset(organs, min_label_pixels=999)
    with pytest.raises(CacheError, match="no such folder; make one with medaug prepare"):
        SliceDataset(tmp_path / "nothing")
    bare = part(opened, tmp_path / "bare", [], list(opened.cases)[:1])
    with pytest.raises(DataError, match="no slice with a label of split train is there"):
        SliceDataset(bare)


def test_a_pickle_holds_no_pixels(phantom_cache):
    data = SliceDataset(phantom_cache)
    before = data[5]  # maps the files
    pickled = pickle.dumps(data)
    assert len(pickled) < 0.1 * data[5]["image"].nbytes * len(data)
    assert same(pickle.loads(pickled)[5], before)
    case = SliceCache.open(phantom_cache).cases[data.cases[0]]
    assert len(case.image) > 10
    assert len(pickle.dumps(case)) < 0.1 * case.image.nbytes


def noisy(item: dict) -> dict:
    """A transform that spawned workers can import."""
    return {**item, "image": item["image"] + torch.rand(())}


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_hand_out_the_same(phantom_cache, start):
    data = SliceDataset(phantom_cache)
    data[0]  # mapped before the workers start
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    loader = DataLoader(data, 8, sampler=order, num_workers=2, multiprocessing_context=start)
    alone = DataLoader(data, 8, sampler=order)
    batches = 0
    for one, other in zip(loader, alone, strict=True):
        assert one["case"] == other["case"]
        for key in ("image", "label", "z", "affine"):
            assert torch.equal(one[key], other[key])
        batches += 1
    assert batches == -(-len(data) // 8)


def test_a_transform_makes_the_item(phantom_cache):
    data = SliceDataset(phantom_cache, transform=lambda item: item["image"].mean())
    plain = SliceDataset(phantom_cache)
    assert [data[i] for i in (0, 9)] == [plain[i]["image"].mean() for i in (0, 9)]


def test_monai_seeds_the_transform_in_each_worker(phantom_cache):
    """Its loader finds random transforms by attribute, so that workers do not repeat each other."""
    noise = Compose([RandGaussianNoised("image", prob=1.0, std=1.0)])
    data = SliceDataset(phantom_cache, transform=noise)
    two = [0, 0]
    torch.manual_seed(3)
    first, second = MonaiLoader(data, batch_size=1, sampler=two, num_workers=2)
    assert not torch.equal(first["image"], second["image"])
    torch.manual_seed(3)
    again, _ = MonaiLoader(data, batch_size=1, sampler=two, num_workers=2)
    assert torch.equal(first["image"], again["image"])


def test_it_serves_the_data_sets_and_splits_of_others(phantom_cache):
    data = SliceDataset(phantom_cache)
    scaled = ScaleIntensityRanged("image", -160, 240, -1, 1, clip=True)
    for wrapped in (MonaiDataset(data, scaled), CacheDataset(data, scaled, progress=False)):
        assert len(wrapped) == len(data)
        item = wrapped[7]
        expected = (data[7]["image"].clamp(-160, 240) + 160) / 200 - 1
        torch.testing.assert_close(torch.as_tensor(item["image"]), expected)
        assert torch.equal(torch.as_tensor(item["label"]), data[7]["label"])
    one, other = random_split(data, [0.5, 0.5])
    assert len(one) + len(other) == len(data)


def test_metadata_travels_with_the_tensors(phantom_cache, opened, tmp_path):
    """Written by MONAI and read by nibabel, a slice lies where the cache has it."""
    data = SliceDataset(phantom_cache, meta=True)
    item = data[25]
    name, z = data.place(25)
    assert isinstance(item["image"], MetaTensor)
    assert isinstance(item["label"], MetaTensor)
    where = {"output_dir": tmp_path, "separate_folder": False, "print_log": False}
    SaveImaged("image", **where, squeeze_end_dims=False)(item)
    written = nibabel.load(tmp_path / f"{name}_{z:04d}_trans.nii.gz")
    marked = np.argmax(item["image"].numpy())
    y, x = np.unravel_index(marked, (32, 32))
    place = written.affine @ [y, x, 0, 1]
    np.testing.assert_allclose(place, opened.cases[name].affine @ [x, y, z, 1], atol=1e-3)
    assert np.asarray(written.dataobj).squeeze()[y, x] == opened.cases[name].image[z, y, x]


def test_a_flip_moves_the_affine_of_the_metadata(phantom_cache):
    flipped = SliceDataset(phantom_cache, meta=True, transform=Flipd(["image", "label"], 1))[25]
    plain = SliceDataset(phantom_cache, meta=True)[25]
    there, back = (
        np.asarray(item["image"].affine) @ [4, column, 0, 1]
        for item, column in ((plain, 3), (flipped, 32 - 1 - 3))
    )
    np.testing.assert_allclose(there, back)
    assert flipped["image"][0, 4, 32 - 1 - 3] == plain["image"][0, 4, 3]


def test_metadata_survives_a_monai_loader(phantom_cache):
    data = SliceDataset(phantom_cache, meta=True)
    (batch, *_) = MonaiLoader(data, batch_size=4, num_workers=0)
    items = decollate_batch({key: batch[key] for key in ("image", "label")})
    assert len(items) == 4
    for number, item in enumerate(items):
        np.testing.assert_allclose(item["image"].affine, data[number]["image"].affine)


def test_pictures_come_with_their_class(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (20, 12, 12))
    for side in ("train", "t10k"):
        write_idx(tmp_path / f"{side}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{side}-labels-idx1-ubyte", np.arange(20) % 10)
    cache = tmp_path / "cache"
    prepare(open_source(str(tmp_path)), cache, CacheSettings(size=None))
    data = SliceDataset(cache, "heldout")
    assert data.cases == ["test"]
    item = data[13]
    assert item.keys() == {"image", "class", "case", "z"}
    assert (item["class"], item["z"]) == (3, 13)
    np.testing.assert_array_equal(item["image"][0], images[13])
    assert next(iter(DataLoader(data, 10)))["class"].tolist() == [*range(10)]
    assert isinstance(SliceDataset(cache, meta=True)[0]["image"], MetaTensor)
    with pytest.raises(ConfigError, match=r"labels: 'a' is not in .* \(there: none\)"):
        SliceDataset(cache, labels=["a"])


def test_photographs_come_in_three_planes_with_their_attributes(tmp_path):
    photographs.celeba(tmp_path / "celeba")
    cache = tmp_path / "cache"
    prepare(open_source(str(tmp_path / "celeba")), cache, CacheSettings(size=32), 0)
    opened, data = SliceCache.open(cache), SliceDataset(cache)
    name, z = data.place(5)
    item, case = data[5], opened.cases[name]
    assert item.keys() == {"image", "attributes", "case", "z"}
    assert item["image"].shape == (3, 32, 32)
    for plane in range(3):
        np.testing.assert_array_equal(item["image"][plane], case.image[z, ..., plane])
    assert item["attributes"].tolist() == case.attributes[z].tolist()
    batch = next(iter(DataLoader(data, 4)))
    assert batch["attributes"].shape == (4, case.attributes.shape[1])


def test_the_snippet_of_the_page_runs(phantom_cache, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (snippet,) = re.findall(r"```python\n(from medaug.data.*?)```", page, re.S)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "pancreas-128px-400mm").symlink_to(phantom_cache)
    monkeypatch.chdir(tmp_path)
    told = {}
    exec(snippet, told)
    assert told["images"].shape == told["labels"].shape
    assert -1.5 < told["images"].min() < told["images"].max() < 1.5
    table = page.partition("## The cache as")[2].partition("| key |")[2].partition("\n\n")[0]
    keys = {key for cell in re.findall(r"^\| (`.*?) \|", table, re.M) for key in cell.split(", ")}
    assert {f"`{key}`" for key in told["heldout"][9]} == keys - {"`class`", "`attributes`"}


def test_it_is_found_lazily() -> None:
    code = (
        "import sys, medaug; medaug.data.open_source; assert 'torch' not in sys.modules;"
        "medaug.data.SliceDataset; assert 'torch' in sys.modules and 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert medaug.data.SliceDataset is SliceDataset
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        medaug.data.nonsense  # noqa: B018
