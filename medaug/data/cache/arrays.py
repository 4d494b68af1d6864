"""Map arrays on disk, which are read when touched: one file, or slices of many in one order.

A collection of a thousand scans is more files than a process may hold open (often 1024) and more
pixels than it should copy.  Files are mapped and closed, so that neither is held: the system keeps
the pages and takes them back where memory is short.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medaug.core.errors import CacheError

Array = npt.NDArray[Any]


def mapped(path: Path) -> Array:
    """Map the array in the ``.npy`` file ``path``, read-only; no descriptor of it stays open.

    Raises:
        CacheError: not such a file.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("of another version")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            start, there = file.tell(), os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        raise CacheError(f"{path}: cannot be read ({error}); prepare the cache again") from error
    if fortran or dtype.hasobject or there != start + dtype.itemsize * int(np.prod(shape)):
        raise CacheError(f"{path}: does not hold the array that it names; prepare the cache again")
    pages = torch.from_file(str(path), shared=False, size=there, dtype=torch.uint8).numpy()
    array = pages[start:].view(dtype).reshape(shape)
    array.flags.writeable = False
    return array


class Stack:
    """Slices of several arrays as one, copied only when indexed.

    Args:
        arrays: (z, *shape) each; None stands for zeros.
        keep: which z of each array, in order.
        shape: of one slice.
        dtype: of all of them.
    """

    def __init__(
        self,
        arrays: Sequence[Array | None],
        keep: Sequence[npt.NDArray[np.intp]],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
    ) -> None:
        self._arrays = [None if a is None else a.view(np.ndarray) for a in arrays]
        self._z = np.concatenate([*keep, np.zeros(0, np.intp)]).astype(np.int32)
        self._ends = np.cumsum([len(z) for z in keep])
        self.shape, self.dtype = (len(self._z), *shape), np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that all slices take in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, index: Tensor) -> Tensor:
        """Copy the slices at ``index``, whole numbers or a mask, to a tensor."""
        places = np.flatnonzero(index.numpy()) if index.dtype == torch.bool else index.numpy()
        z, numbers = self._z[places], np.searchsorted(self._ends, places, "right")
        if len(self._arrays) == 1 and self._arrays[0] is not None:
            return torch.from_numpy(self._arrays[0][z])
        found = np.empty((len(z), *self.shape[1:]), self.dtype)
        for row, (number, at) in enumerate(zip(numbers.tolist(), z.tolist(), strict=True)):
            array = self._arrays[number]
            found[row] = 0 if array is None else array[at]
        return torch.from_numpy(found)

    def whole(self) -> Tensor:
        """Copy all slices, array by array."""
        found = np.empty(self.shape, self.dtype)
        start = 0
        for array, end in zip(self._arrays, self._ends.tolist(), strict=True):
            found[start:end] = 0 if array is None else array[self._z[start:end]]
            start = end
        return torch.from_numpy(found)
