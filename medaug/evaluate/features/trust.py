"""What a TorchScript file would do, read from its source before torch loads it.

TorchScript is a program: loading it already runs the ``__setstate__`` of its modules.  It knows no
import and no process, but its operators ``save`` and ``from_file`` write and map any file, and
others talk to other machines.  Files that name one of these are refused, however they are called.
"""

import io
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from medaug.errors import WeightsError

_REACHING_OUT = {"save", "from_file", "load_tensor", "rpc_async", "rpc_sync", "rpc_remote"}
_NAMESPACES = {"aten", "prim", "quantized", "torchvision"}
_CLASSES = {b"quantized"}
_NATIVE_CLASS = re.compile(rb"torch\.classes\.(\w+)")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, SyntaxError, ValueError, RuntimeError)
_MOST_SOURCE = 2**26
_END, _END_BYTES = b"PK\5\6", 22


def check_script(path: Path) -> None:
    """Refuse a TorchScript file that reaches for files, other machines or native classes.

    Raises:
        WeightsError: it does, or it is no plain zip archive as ``torch.jit.save`` writes it.
        OSError: it cannot be read.
    """
    try:
        for name, content in _sources(path):
            word = _native(content) if name.endswith("pkl") else _reached(content)
            if word:
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


def _sources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Source files and pickles by lower-case name; torch looks names up in any case."""
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
                yield name, packed.read(entry)


def _native(content: bytes) -> str:
    """The first native class that a pickle names, or nothing."""
    others = set(_NATIVE_CLASS.findall(content)) - _CLASSES
    return f"torch.classes.{min(others).decode()}" if others else ""


def _reached(source: bytes) -> str:
    """The first word of a source file that is not about tensors, or nothing."""
    if native := _native(source):
        return native
    words = list(tokenize.tokenize(io.BytesIO(source).readline))
    for place, word in enumerate(words):
        if word.type != tokenize.NAME:
            continue
        if word.string in _REACHING_OUT:
            return word.string
        if word.string == "ops":
            after = [next_word.string for next_word in words[place + 1 : place + 3]]
            if after[0] != "." or after[1] not in _NAMESPACES:
                return f"ops{''.join(after)}"
    return ""
