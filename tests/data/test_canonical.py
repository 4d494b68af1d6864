import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd

from medaug.data.formats.grids import to_ras

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
    given = volume(order, signs, shape)
    values, affine = to_ras(given.as_tensor()[0].numpy(), given.affine.numpy())
    np.testing.assert_array_equal(values, theirs["image"].as_tensor()[0].numpy())
    assert affine == pytest.approx(theirs["image"].affine.numpy())
    assert affine.dtype == np.float64


def test_what_a_rotation_leaves_of_an_axis_elsewhere_is_dropped() -> None:
    straight = np.diag([-0.7, 0.8, 2.5, 1.0])
    noise = np.zeros((4, 4))
    noise[:3, :3] = 1e-19
    oblique = straight + 1e3 * np.sign(noise) * 1e-6
    affines = []
    for affine in (straight, straight + noise, oblique):
        affines.append(to_ras(np.zeros((4, 5, 3), np.int16), affine)[1])
    np.testing.assert_array_equal(affines[1], affines[0])
    assert np.count_nonzero(affines[2][:3, :3]) == 9
