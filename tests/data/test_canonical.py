import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd

from medaug.data.formats.canonical import Canonicald

RAS = (("L", "R"), ("P", "A"), ("I", "S"))
STORED = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def volume(
    order: tuple[int, ...], signs: tuple[int, ...], shape: tuple[int, int, int]
) -> MetaTensor:
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    affine = np.eye(4)
    affine[:3, :3] = 0.02
    affine[list(order), range(3)] = np.array(signs) * (0.7, 0.8, 2.5)
    affine[:3, 3] = 11, -7, 3
    return MetaTensor(torch.from_numpy(values)[None], affine=affine)


@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 4, 2)])
@pytest.mark.parametrize(("order", "signs"), STORED)
def test_it_turns_as_monai_does(
    order: tuple[int, ...], signs: tuple[int, ...], shape: tuple[int, int, int]
) -> None:
    theirs = Orientationd("image", "RAS", labels=RAS)({"image": volume(order, signs, shape)})
    ours = Canonicald("image")({"image": volume(order, signs, shape)})
    assert torch.equal(ours["image"].as_tensor(), theirs["image"].as_tensor())
    assert ours["image"].affine.numpy() == pytest.approx(theirs["image"].affine.numpy())
    assert ours["image"].affine.dtype == torch.float64


def test_what_is_told_of_a_volume_is_kept() -> None:
    given = volume((0, 1, 2), (-1, -1, 1), (4, 5, 3))
    given.meta["lossy"] = "JPEG"
    assert Canonicald("image")({"image": given})["image"].meta["lossy"] == "JPEG"


def test_what_a_rotation_leaves_of_an_axis_elsewhere_is_dropped() -> None:
    straight = np.diag([-0.7, 0.8, 2.5, 1.0])
    noise = np.zeros((4, 4))
    noise[:3, :3] = 1e-19
    oblique = straight + 1e3 * np.sign(noise) * 1e-6
    affines = []
    for affine in (straight, straight + noise, oblique):
        values = torch.zeros(1, 4, 5, 3, dtype=torch.int16)
        turned = Canonicald("image")({"image": MetaTensor(values, affine=affine)})
        affines.append(turned["image"].affine.numpy())
    np.testing.assert_array_equal(affines[1], affines[0])
    assert np.count_nonzero(affines[2][:3, :3]) == 9
