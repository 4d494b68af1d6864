import numpy as np
from scipy import ndimage

from medaug.data.checks.reduced import find_body


def test_gas_within_a_slice_of_the_body_belongs_to_it() -> None:
    y, x = np.mgrid[:40, :40]
    away = np.hypot(x - 20, y - 20)
    hu = np.full((40, 40, 6), -1000, np.float32)
    hu[away < 15] = 40
    hu[(np.hypot(x - 16, y - 20) < 4)] = -1000
    hu[20:, 18:22, 3] = -1000
    body = find_body(hu)
    expected = hu > -300
    for z in range(6):
        expected[:, :, z] = ndimage.binary_fill_holes(expected[:, :, z])
    assert body[16, 20, 0]
    assert not body[30, 20, 3]
    assert np.array_equal(body, expected)
