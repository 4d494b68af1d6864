"""Stored values to network values and back."""

import json

import pytest
import torch

from medaug.core.codec import CTCodec, PictureCodec, from_dict
from medaug.core.errors import WeightsError

CODEC = CTCodec((-160.0, 240.0), {"pancreas": 1, "liver": 6})


def test_ct_round_trip_is_exact_inside_the_window() -> None:
    image = torch.arange(-160, 241, dtype=torch.int16).reshape(1, 1, -1)
    label = torch.tensor([0, 1, 6], dtype=torch.uint8)[torch.arange(401) % 3].reshape(1, 1, -1)
    x = CODEC.encode(image, label)
    assert x.shape == (1, 3, 1, 401)
    assert x.min() == -1
    assert x.max() == 1
    back, masks = CODEC.decode(x)
    assert torch.equal(back, image)
    assert masks is not None
    assert torch.equal(masks, label)
    assert (back.dtype, masks.dtype) == (torch.int16, torch.uint8)


def test_values_beyond_the_window_are_clipped() -> None:
    image = torch.tensor([[[-1024, 3000]]], dtype=torch.int16)
    back, _ = CTCodec((-160.0, 240.0), {}).decode(CTCodec((-160.0, 240.0), {}).encode(image, None))
    assert back.tolist() == [[[-160, 240]]]


def test_the_window_changes_what_is_seen() -> None:
    image = torch.full((1, 2, 2), 100, dtype=torch.int16)
    assert CTCodec((-160.0, 240.0), {}).encode(image, None).max() == pytest.approx(0.3)
    assert CTCodec((0.0, 200.0), {}).encode(image, None).max() == pytest.approx(0.0)


def test_the_stronger_mask_wins_and_weak_ones_are_background() -> None:
    x = torch.tensor([0.0, 0.2, 0.6]).reshape(1, 3, 1, 1)
    assert CODEC.decode(x)[1].item() == 6  # type: ignore[union-attr]
    assert CODEC.decode(-x)[1].item() == 0  # type: ignore[union-attr]


def test_masks_without_a_label_map_are_refused() -> None:
    with pytest.raises(ValueError, match="a label map is needed"):
        CODEC.encode(torch.zeros(1, 2, 2), None)


def test_grey_round_trip_is_exact() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    assert torch.equal(PictureCodec().decode(PictureCodec().encode(image))[0], image)


@pytest.mark.parametrize("codec", [CODEC, PictureCodec()], ids=["ct", "grey"])
def test_dict_round_trip(codec: CTCodec | PictureCodec) -> None:
    assert from_dict(codec.to_dict()) == codec


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(WeightsError) as caught:
        from_dict({"kind": "spectrogram"})
    assert str(caught.value) == "codec 'spectrogram' is not known (known: ct, image)"


def test_a_header_with_sorted_keys_keeps_the_channel_order():
    codec = CTCodec((-160.0, 240.0), {"pancreas": 1, "aorta": 2, "liver": 3})
    again = from_dict(json.loads(json.dumps(codec.to_dict(), sort_keys=True)))
    assert list(again.labels) == ["pancreas", "aorta", "liver"]
    older = {k: v for k, v in codec.to_dict().items() if k != "order"}
    mixed = older | {"labels": {"aorta": 2, "liver": 3, "pancreas": 1}}
    assert list(from_dict(mixed).labels) == ["pancreas", "aorta", "liver"]
