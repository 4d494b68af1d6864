"""A feature space that the user brings: Inception, RadImageNet or DINO as a TorchScript file."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from medaug.core.errors import ConfigError, WeightsError
from medaug.core.types import HU
from medaug.evaluation.features.extractor import blocks, windowed

# What a TorchScript file would do, read from its source before torch loads it.
#
# TorchScript is a program: loading it already runs the ``__setstate__`` of its modules.  It knows
# no import and no process, but its operators ``save`` and ``from_file`` write and map any file, and
# others talk to other machines.  Files that name one of these are refused, however they are called.


_REACHING_OUT = re.compile(rb"\b(?:save|from_file|load_tensor|rpc_async|rpc_sync|rpc_remote)\b")


_NATIVE_CLASS = re.compile(rb"torch\.classes\b(?!\.quantized\b).{0,20}")


_NAMESPACE = re.compile(rb"\bops\b(?!\.(?:aten|prim|quantized|torchvision)\b).{0,20}")


_IN_SOURCE, _IN_PICKLES = (_REACHING_OUT, _NATIVE_CLASS, _NAMESPACE), (_NATIVE_CLASS,)


_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)


_MOST_SOURCE = 2**26


_END, _END_BYTES = b"PK\5\6", 22


def check_script(path: Path) -> None:
    """Refuse a TorchScript file that reaches for files, other machines or native classes.

    Raises:
        WeightsError: it does, or it is no plain zip archive as ``torch.jit.save`` writes it.
        OSError: it cannot be read.
    """
    try:
        for content, patterns in _sources(path):
            if word := _first(content, patterns):
                raise WeightsError(
                    f"{path}: a script that uses {word}, which reaches beyond tensors; a feature "
                    "extractor computes features and nothing else"
                )
    except WeightsError:
        raise
    except _DAMAGE as error:
        raise WeightsError(
            f"{path}: not a TorchScript file; a feature extractor is what torch.jit.save wrote"
        ) from error


def _sources(path: Path) -> Iterator[tuple[bytes, Sequence[re.Pattern[bytes]]]]:
    """Source and pickles with what they must not name; torch takes their suffix in any case."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - _END_BYTES, 0))
        if not file.read(4) == _END:  # bytes behind the end may hide a second archive
            raise ValueError("bytes behind the archive")
    with zipfile.ZipFile(path) as packed:
        names = [entry.filename.lower() for entry in packed.infolist()]
        if len(set(names)) < len(names):
            raise ValueError("an entry is there twice")
        for name, entry in zip(names, packed.infolist(), strict=True):
            if entry.compress_type != zipfile.ZIP_STORED and entry.file_size > _MOST_SOURCE:
                raise ValueError(f"{name} unpacks to {entry.file_size} bytes")
            if name.endswith((".py", "pkl")):
                if entry.file_size > _MOST_SOURCE:
                    raise ValueError(f"{name} has {entry.file_size} bytes")
                yield packed.read(entry), _IN_SOURCE if name.endswith(".py") else _IN_PICKLES


def _first(content: bytes, patterns: Sequence[re.Pattern[bytes]]) -> str:
    """The first word that is not about tensors, in code, string or comment alike, or nothing."""
    for pattern in patterns:
        if found := pattern.search(content):
            return found[0].decode(errors="replace")
    return ""


class Script:
    """Features of a TorchScript file: (n, 3, y, x) float32 in [0, 1] in, (n, d) out.

    The three channels are the same grey window.  What else the network needs (another size, a mean
    and deviation of its own) belongs into the script.  A pickle of weights is refused: it could run
    anything when it is loaded; so is a script that reaches beyond tensors, see `check_script`.

    Args:
        path: what ``torch.jit.save`` wrote; its stem is the name of the space.
        window_hu: what is seen.
        device: where it runs.

    Raises:
        WeightsError: no such file, or no TorchScript.
    """

    def __init__(
        self, path: Path, window_hu: tuple[float, float], device: str | torch.device = "cpu"
    ) -> None:
        self.path, self.window_hu, self.device = Path(path), window_hu, device
        try:
            check_script(self.path)
            self.version = hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
        self.name = self.path.stem
        try:
            self.network = torch.jit.load(str(self.path), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path}: not a TorchScript file; a feature extractor is what torch.jit.save wrote"
            ) from error

    @torch.inference_mode()
    def __call__(self, images: HU) -> Tensor:
        """Features float32 (n, d) of slices in HU (n, y, x).

        Raises:
            ConfigError: the script refuses the slices, or gives something else than (n, d).
        """
        rows = []
        for part in blocks(images):
            x = windowed(part, self.window_hu).expand(-1, 3, -1, -1).to(self.device)
            try:
                found = self.network(x)
            except RuntimeError as error:
                last = str(error).strip().splitlines()[-1]
                raise ConfigError(
                    f"{self.path}: does not take slices {tuple(x.shape)} ({last})"
                ) from error
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(part):
                raise ConfigError(
                    f"{self.path}: gives {shape} for {len(part)} slices; wanted are features (n, d)"
                )
            rows.append(found.float().cpu())
        return torch.cat(rows).clone()
