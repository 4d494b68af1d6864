"""Files that mean harm: what they would do is to leave a canary."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Payload:
    """Makes the file ``canary`` when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def pickled(canary: Path) -> bytes:
    return pickle.dumps(Payload(canary))


def torch_zip(canary: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"weights": Payload(canary)}, stream)
    return stream.getvalue()


def torch_legacy(canary: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"weights": Payload(canary)}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def object_array(canary: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([[[Payload(canary)]]], dtype=object), allow_pickle=True)
    return stream.getvalue()


def object_arrays(canary: Path, *names: str) -> bytes:
    stream = io.BytesIO()
    held = {name: np.array([Payload(canary)], dtype=object) for name in names or ("image",)}
    np.savez(stream, **held)  # type: ignore[arg-type]
    return stream.getvalue()


FORMS = {
    "pkl": pickled,
    "pt": torch_zip,
    "pth": torch_legacy,
    "npy": object_array,
    "npz": object_arrays,
}
"""Suffix to content, which runs code in a library that trusts it."""


def plant(folder: Path, canary: Path, stem: str = "planted") -> list[Path]:
    """One file of each form in ``folder``."""
    files = []
    for suffix, content in FORMS.items():
        files.append(folder / f"{stem}.{suffix}")
        files[-1].write_bytes(content(canary))
    return files
