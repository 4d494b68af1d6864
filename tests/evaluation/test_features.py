"""Feature spaces: what they are, that they stay what they are, and that they are taken once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import correlate

from medaug.core.errors import ConfigError, WeightsError
from medaug.evaluation.features import encoder as encoders
from medaug.evaluation.features import texture
from medaug.evaluation.features.encoder import encoder_of, train_encoder
from medaug.evaluation.features.pixels import Pixels, RandomConvolutions, weights
from medaug.evaluation.features.script import Script
from medaug.evaluation.features.spaces import spaces_of
from medaug.evaluation.slices.evidence import Evidence, SliceSet

WINDOW = (-160.0, 240.0)
FIRST = [-0.32968986, 0.42682451, 0.4594222]
"""Of the random weights, written down once."""


def slices(count: int = 40, side: int = 32, seed: int = 0) -> np.ndarray:
    """Smooth random slices in HU, air around a body."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(-200, 250, (count, 1, 6, 6)))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0]
    noisy = smooth.numpy() + rng.normal(0, 10, smooth.shape)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    noisy[:, x**2 + y**2 > 0.8] = -1000
    return np.clip(noisy.round(), *WINDOW).astype(np.int16)


def slice_set(count: int, side: int = 32, seed: int = 0) -> SliceSet:
    cases = [f"case{i // 4}" for i in range(count)]
    return SliceSet(slices(count, side, seed), None, cases, np.arange(count), 6.0, 5.0, {})


def evidence(count: int = 40) -> Evidence:
    return Evidence(*(slice_set(count, seed=seed) for seed in range(3)), WINDOW)


def test_random_weights_are_the_written_words_of_a_generator_with_a_fixed_stream() -> None:
    first = weights()[0].flatten()[:3].tolist()
    assert first == pytest.approx(FIRST, abs=1e-7)
    every = torch.cat([w.flatten() for w in weights()[1:]])
    assert every.var().item() == pytest.approx(2 / (9 * 16), rel=0.05)


def test_random_convolutions_agree_with_scipy_on_the_first_layer() -> None:
    images = slices(3)
    x = (images + 160) / 400 * 2 - 1.0
    found = RandomConvolutions(WINDOW)(images)
    kernel = weights()[0][5, 0].double().numpy()
    for row, picture in zip(found, x, strict=True):
        seen = correlate(picture, kernel, mode="mirror")
        seen = np.where(seen > 0, seen, 0.2 * seen)
        assert row[5].item() == pytest.approx(seen.mean(), abs=1e-5)
        assert row[16 + 5].item() == pytest.approx(seen.std(), abs=1e-5)


def test_pixels_are_the_window_averaged_to_the_side() -> None:
    images = slices(5, 64)
    found = Pixels("coarse", WINDOW, 16)(images)
    expected = (images.astype(float) + 160) / 400
    expected = expected.reshape(5, 16, 4, 16, 4).mean((2, 4)).reshape(5, -1)
    assert found.numpy() == pytest.approx(expected, abs=1e-6)
    assert Pixels("pixels", WINDOW)(slices(2, 32)).shape == (2, 32 * 32)


@pytest.mark.parametrize("space", ["random", "encoder", "texture", "pixels", "coarse"])
def test_a_slices_features_are_its_own_and_the_version_says_what_changed(space: str) -> None:
    data = evidence(70)
    spaces = spaces_of(data, encoder_images=64)
    named = {s.name: s for s in (*spaces.learned, spaces.pixels, spaces.coarse)}
    found = named[space](data.heldout.images)
    assert found.dtype == torch.float32
    assert found.shape[0] == 70
    assert torch.isfinite(found).all()
    shuffled = named[space](data.heldout.images[::-1])
    assert torch.allclose(shuffled.flip(0), found, atol=1e-5)
    other = spaces_of(replace(data, window_hu=(-200.0, 240.0)), encoder_images=64)
    versions = {s.name: s.version for s in (*other.learned, other.pixels, other.coarse)}
    assert versions[space] != named[space].version


def test_first_order_features_agree_with_scipy() -> None:
    images = slices(6)
    found = dict(zip(texture.NAMES, texture.measured(images, WINDOW).T, strict=True))
    for i, image in enumerate(images):
        inside = image[image > -150].astype(float)
        assert found["inside"][i] == pytest.approx(inside.size / image.size)
        assert found["mean"][i] == pytest.approx(inside.mean())
        assert found["deviation"][i] == pytest.approx(inside.std())
        assert found["skewness"][i] == pytest.approx(stats.skew(inside))
        assert found["kurtosis"][i] == pytest.approx(stats.kurtosis(inside, fisher=False))
        assert found["median"][i] == np.quantile(inside, 0.5, method="inverted_cdf")
        assert found["ninetieth"][i] == np.quantile(inside, 0.9, method="inverted_cdf")
        fat = inside[(inside >= -150) & (inside <= -30)]
        assert found["fat"][i] == np.quantile(fat, 0.5, method="inverted_cdf")


def test_cooccurrence_agrees_with_its_definition_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    levels, inside = rng.integers(0, 16, (3, 9, 8)), rng.random((3, 9, 8)) > 0.2
    found = texture.glcm(levels, inside)
    for n in range(3):
        pairs = []
        for y in range(9):
            for x in range(8):
                for dy, dx in texture.OFFSETS:
                    v, u = y + dy, x + dx
                    if 0 <= v < 9 and 0 <= u < 8 and inside[n, y, x] and inside[n, v, u]:
                        pairs += [(levels[n, y, x], levels[n, v, u])]
                        pairs += [(levels[n, v, u], levels[n, y, x])]
        a, b = np.array(pairs, float).T
        shares = np.unique(np.array(pairs), axis=0, return_counts=True)[1] / len(pairs)
        expected = [
            np.mean((a - b) ** 2),
            np.mean(np.abs(a - b)),
            np.mean(1 / (1 + (a - b) ** 2)),
            np.sum(shares**2),
            np.corrcoef(a, b)[0, 1],
            stats.entropy(shares, base=2),
        ]
        assert found[n] == pytest.approx(expected, abs=1e-12)


def test_local_patterns_of_a_spot_an_edge_and_a_flat_patch() -> None:
    flat = np.zeros((1, 3, 3), int)
    spot, edge, odd = flat.copy(), flat.copy(), flat.copy()
    spot[0, 1, 1] = 9
    edge[0, 1, 1], edge[0, 0] = 1, 5
    odd[0, 1, 1], odd[0, 0, 0], odd[0, 2, 2] = 1, 5, 5
    inside = np.ones((1, 3, 3), bool)
    found = [texture.lbp(x, inside)[0].argmax() for x in (flat, spot, edge, odd)]
    assert found == [8, 0, 3, 9]


def test_texture_is_standardised_by_the_training_slices() -> None:
    images = slices(50)
    found = texture.Texture.fit(images, WINDOW)(images)
    assert found.mean(0).abs().max() < 1e-5
    spread = found.std(0, correction=0)
    assert torch.all(((spread - 1).abs() < 1e-4) | (spread < 1e-6))
    blank = np.full((2, 32, 32), -160, np.int16)
    assert torch.isfinite(texture.Texture.fit(images, WINDOW)(blank)).all()


def test_an_encoder_is_the_same_for_the_same_arguments_and_learns() -> None:
    images = slices(30)
    one, two = (train_encoder(images, WINDOW, count=96) for _ in range(2))
    assert one.version == two.version
    assert torch.equal(one(images), two(images))
    assert train_encoder(images, WINDOW, count=96, seed=1).version != one.version
    longer = train_encoder(images, WINDOW, count=1600)

    def error(encoder: encoders.Encoder) -> float:
        x = encoders._seen(images, WINDOW)
        with torch.inference_mode():
            return (encoder.network(x) - x).square().mean().item()

    assert error(longer) < error(one) / 2


def test_an_encoder_is_kept_by_all_that_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = slices(30)
    first = encoder_of(images, WINDOW, tmp_path, count=32)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "train_encoder", None)
        assert encoder_of(images, WINDOW, tmp_path, count=32).version == first.version
    path.write_bytes(path.read_bytes()[:-8])
    assert encoder_of(images, WINDOW, tmp_path, count=32).version == first.version
    encoder_of(images[1:], WINDOW, tmp_path, count=32)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_encoder_of_one_slice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 training slices and more.* got 1 and 32$"):
        train_encoder(slices(1), WINDOW, count=32)


def test_features_are_taken_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = evidence()
    spaces = spaces_of(data, tmp_path, encoder_images=32)
    found = {s.name: spaces.features(s, "synthetic") for s in spaces.learned}
    again = spaces_of(data, tmp_path, encoder_images=32)
    with monkeypatch.context() as patch:
        patch.setattr(RandomConvolutions, "__call__", None)
        patch.setattr(texture.Texture, "__call__", None)
        for space in again.learned:
            assert torch.equal(again.features(space, "synthetic"), found[space.name])
    changed = replace(data, synthetic=slice_set(40, seed=9))
    other = spaces_of(changed, tmp_path, encoder_images=32)
    assert not torch.equal(other.features(other.learned[0], "synthetic"), found["random"])
    for kept in tmp_path.glob("random-*"):
        kept.write_bytes(b"damaged")
    repaired = spaces_of(data, tmp_path, encoder_images=32)
    assert torch.equal(repaired.features(repaired.learned[0], "synthetic"), found["random"])


def test_as_many_training_slices_stand_in_the_place_of_the_synthetic_ones() -> None:
    data = replace(evidence(40), synthetic=slice_set(100))
    spaces = spaces_of(data, encoder_images=16)
    assert (spaces.n, len(spaces.train), spaces.n_real) == (40, 40, 40)
    assert spaces_of(data, encoder_images=16, most=30).n == 30


def test_slices_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"of \(64, 64\) pixels cannot .* real ones of \(32, 32"):
        spaces_of(replace(evidence(), synthetic=slice_set(40, 64)))


class Means(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


def saved(network: torch.nn.Module, path: Path) -> Path:
    torch.jit.trace(network, torch.zeros(2, 3, 32, 32)).save(str(path))
    return path


def test_a_users_script_sees_three_grey_channels_of_the_window(tmp_path: Path) -> None:
    images = slices(70)
    path = saved(Means(), tmp_path / "mine.pt")
    space = Script(path, WINDOW)
    expected = (images.astype(float) + 160) / 400
    assert space.name == "mine"
    assert space(images)[:, :3].numpy() == pytest.approx(
        np.repeat(expected.mean((1, 2))[:, None], 3, 1), abs=1e-5
    )
    spaces = spaces_of(evidence(), scripts=[path], encoder_images=16)
    assert [s.name for s in spaces.learned] == ["random", "encoder", "texture", "mine"]
    with pytest.raises(ConfigError, match="two feature spaces are called 'texture'"):
        spaces_of(evidence(), scripts=[saved(Means(), tmp_path / "texture.pt")])


def test_a_script_that_gives_no_rows_is_refused(tmp_path: Path) -> None:
    cube = Script(saved(torch.nn.Identity(), tmp_path / "cube.pt"), WINDOW)
    with pytest.raises(ConfigError, match=r"gives \(4, 3, 32, 32\) for 4 slices; wanted are"):
        cube(slices(4))


def test_pickles_and_missing_files_are_no_scripts(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt: not a TorchScript file"):
        Script(tmp_path / "w.pt", WINDOW)
    with pytest.raises(WeightsError, match=r"none\.pt: cannot be read \(No such file"):
        Script(tmp_path / "none.pt", WINDOW)
