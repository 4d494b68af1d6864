"""Write and read tensors: the training states of a run, and its exported generator.

Both are safetensors files whose header carries JSON and a checksum; nothing that is loaded can
run code.  A run keeps its two newest states and resumes from the newest one that is sound.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medaug.core.errors import RunError, WeightsError
from medaug.core.text import tell
from medaug.runtime.files import parse_json, write_bytes

VERSION = 1
KEPT = 2
"""States that a run keeps."""
MOST_HEADER = 100_000_000
"""Largest header in bytes, the same as that of safetensors itself."""


def digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """Return the sha256 of the header and every tensor's name, dtype, shape and bytes by name."""
    total = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        if value.numel():
            total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Write tensors and a JSON header, whole or not at all; return the checksum."""
    from safetensors.torch import save

    flat = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    text = json.dumps({"version": VERSION, **header}, sort_keys=True)
    checksum = digest(flat, text)
    write_bytes(path, _ordered(save(flat, metadata={"medaug": text, "sha256": checksum})))
    return checksum


def _ordered(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file by name; the library's order varies by call."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def read_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a file that ``write_tensors`` wrote, without reading its tensors.

    Raises:
        WeightsError: no such file, a pickle, not safetensors, or not ours.
    """
    return _metadata(path)[0]


def _metadata(path: Path) -> tuple[dict[str, Any], str, str]:
    """The JSON header, parsed and as text, and the checksum."""
    # Find the header of safetensors: its length in 8 bytes, then JSON.
    try:
        with path.open("rb") as file:
            start = file.read(9)
            if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
                raise WeightsError(
                    f"{path}: a pickle, which can run code when it is loaded; "
                    "medaug reads safetensors files only"
                )
            length = struct.unpack("<Q", start[:8])[0] if start[8:] == b"{" else 0
            if not 2 <= length <= min(path.stat().st_size - 8, MOST_HEADER):
                raise WeightsError(f"{path}: not a safetensors file")
            file.seek(8)
            metadata = dict(parse_json(file.read(length)).get("__metadata__", {}))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except WeightsError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: not a safetensors file") from error

    # Read medaug's own header in it.
    if "medaug" not in metadata:
        raise WeightsError(f"{path}: a safetensors file, but not written by medaug")
    try:
        header = dict(parse_json(metadata["medaug"]))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: damaged, its header is not JSON") from error
    if header.get("version") != VERSION:
        raise WeightsError(
            f"{path}: written in format {header.get('version')!r}, this medaug reads {VERSION}"
        )
    return header, metadata["medaug"], str(metadata.get("sha256", ""))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Return tensors, header and checksum of a file that ``write_tensors`` wrote.

    Raises:
        WeightsError: as ``read_header``, or the content does not match its checksum.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    header, text, checksum = _metadata(path)
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{path}: damaged, {error}") from error
    except MemoryError as error:
        size = path.stat().st_size
        raise WeightsError(f"{path}: its {size} bytes do not fit into memory") from error
    if digest(tensors, text) != checksum:
        raise WeightsError(f"{path}: damaged, its content does not match its checksum")
    return tensors, header, checksum


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as bytes, to send them to another process."""
    from safetensors.torch import save

    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def unpack(content: bytes) -> dict[str, Tensor]:
    """Return the tensors that ``pack`` packed."""
    from safetensors.torch import load

    return load(content)


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose names start with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def sound(path: Path) -> bool:
    """Whether a file that ``write_tensors`` wrote is there and whole."""
    try:
        read_tensors(path)
    except WeightsError:
        return False
    return True


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Read tensors as ``read_tensors`` does, and check that all values are finite.

    Raises:
        WeightsError: as ``read_tensors``, or a tensor with values that are not finite.
    """
    tensors, header, checksum = read_tensors(path)
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"{path}: {name} holds values that are not finite numbers")
    return tensors, header, checksum


def state_path(run: Path, images: int) -> Path:
    """The file of the training state after ``images`` images."""
    return run / "checkpoints" / f"state-{images:010d}.safetensors"


def save_state(run: Path, images: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the state after ``images`` images, and remove all but the newest two."""
    write_tensors(state_path(run, images), tensors, {"images": images})
    for old in sorted(state_path(run, 0).parent.glob("state-*.safetensors"))[:-KEPT]:
        old.unlink()


def load_state(run: Path) -> tuple[int, dict[str, Tensor]] | None:
    """Return images and tensors of the newest sound state; None where there is no state.

    States that are damaged are named on standard error.

    Raises:
        RunError: there are states, but none of them is sound.
    """
    states = sorted(state_path(run, 0).parent.glob("state-*.safetensors"), reverse=True)
    for path in states:
        try:
            tensors, header, _ = read_weights(path)
        except WeightsError as error:
            tell(f"{error}; going on from the checkpoint before it")
            continue
        return int(header["images"]), tensors
    if states:
        raise RunError(f"{run}: none of its {len(states)} checkpoints is sound; start a new --run")
    return None


def compact(source: Path, target: Path) -> None:
    """Write the weights in ``source`` at half precision to ``target``.

    Small tensors, which hold counts and moments, keep their precision.
    """
    tensors, header, _ = read_tensors(source)
    small = {
        k: v.half() if v.is_floating_point() and v.numel() > 64 else v for k, v in tensors.items()
    }
    write_tensors(target, small, header)
