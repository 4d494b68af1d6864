"""Small files that announce, or unpack to, more than a machine has; read under a memory limit.

Run as a program, this reads one file after the other with little memory to spare and prints what
became of each as JSON lines: ``python -m tests.support.bombs FOLDER``.
"""

import gzip
import io
import json
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

ROOM = 512 * 2**20
"""Bytes that reading any of the files may take beside what importing the readers took."""
GIB = 2**30


NRRD = b"NRRD0004\ntype: short\nendian: little\ndimension: 3\n"


def zeros(count: int) -> bytes:
    """``count`` zero bytes as a raw deflate stream: one block of it, time and again."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (count // 2**24) + packer.flush()


def gzipped(count: int) -> bytes:
    """``count`` zero bytes as gzip, but for the checksum at its end."""
    return b"\x1f\x8b\x08" + bytes(7) + zeros(count) + bytes(8)


def nifti(shape: tuple[int, ...], offset: float = 352, datatype: int = 4, intent: int = 0) -> bytes:
    """A NIfTI-1 header alone."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<hhh", header, 68, intent, datatype, 16)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, offset)
    header[344:348] = b"n+1\0"
    return bytes(header)


def nifti2(shape: tuple[int, ...], intent: int = 0) -> bytes:
    header = bytearray(544)
    struct.pack_into("<i8shh8q", header, 0, 540, b"n+2\0\r\n\x1a\n", 4, 16, len(shape),
                     *shape, *[1] * (7 - len(shape)))  # fmt: skip
    struct.pack_into("<q", header, 168, 544)
    struct.pack_into("<i", header, 504, intent)
    return bytes(header)


def idx(shape: tuple[int, ...], body: bytes = b"") -> bytes:
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + body


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """An explicit little-endian DICOM element."""
    value += b"\0" * (len(value) % 2)
    long = vr in (b"OB", b"OW", b"SQ", b"UN")
    size = struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + vr + size + value


def dicom(body: bytes, syntax: bytes, frames: bytes = b"") -> bytes:
    meta = element(2, 0x10, b"UI", syntax)
    size = element(2, 0, b"UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + size + meta + body + frames


def slice_header(rows: int, columns: int, number: int = 1, frames: int | None = None) -> bytes:
    """What a CT slice says of itself before its pixels."""
    shorts = ((0x02, 1), (0x10, rows), (0x11, columns), (0x100, 16), (0x101, 16), (0x102, 15),
              (0x103, 1))  # fmt: skip
    return b"".join(
        [
            element(8, 0x60, b"CS", b"CT"),
            element(0x10, 0x20, b"LO", b"PANCREAS_0001"),
            element(0x20, 0x0E, b"UI", b"1.2.3"),
            element(0x20, 0x13, b"IS", str(number).encode()),
            element(0x20, 0x32, b"DS", f"0\\0\\{number}".encode()),
            element(0x20, 0x37, b"DS", b"1\\0\\0\\0\\1\\0"),
            element(0x28, 2, b"US", struct.pack("<H", 1)),
            element(0x28, 4, b"CS", b"MONOCHROME2"),
            element(0x28, 8, b"IS", str(frames).encode()) if frames else b"",
            element(0x28, 0x30, b"DS", b"1\\1"),
            *(element(0x28, n, b"US", struct.pack("<H", v)) for n, v in shorts[1:]),
            element(0x28, 0x1052, b"DS", b"0"),
            element(0x28, 0x1053, b"DS", b"1"),
        ]
    )


def deflated(count: int) -> bytes:
    """A deflated slice that inflates to ``count`` bytes."""
    packer = zlib.compressobj(9, wbits=-15)
    head = slice_header(8, 8) + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, count)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    return dicom(start + zeros(count), b"1.2.840.10008.1.2.1.99")


def chunk(name: bytes, data: bytes) -> bytes:
    """A piece of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(2**20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + body + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """The comment of a PNG, which unpacks to a gigabyte."""
    return chunk(b"zTXt", b"Comment\0\0" + b"\x78\xda" + zeros(GIB) + bytes(4))


def safetensors(header: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def tensors(entries: str, extra: str = "") -> bytes:
    ours = json.dumps({"medaug": json.dumps({"version": 1}), "sha256": ""})
    return f'{{"__metadata__":{ours}{extra},{entries}}}'.encode()


HUGE = '"w":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}'
OVERLAP = ('"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
           '"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}')  # fmt: skip
BEYOND = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}'
SMALL = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

WEIGHTS = {
    "length-2-63": safetensors(b"{}", 2**63),
    "length-2-64": safetensors(b"{}", 2**64 - 1),
    "length-beyond": safetensors(b"{}", 3),
    "trillion": safetensors(tensors(HUGE)),
    "overlap": safetensors(tensors(OVERLAP), body=bytes(12)),
    "beyond": safetensors(tensors(BEYOND), body=bytes(8)),
    "duplicate": safetensors(tensors(f"{SMALL},{SMALL}"), body=bytes(8)),
    "duplicate-metadata": safetensors(tensors(SMALL, ',"__metadata__":{}'), body=bytes(8)),
    "not-utf-8": safetensors(b'{"\xff\xfe":1}'),
    "deep": safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep-inside": safetensors(json.dumps({"__metadata__": {"medaug": "[" * 100_000}}).encode()),
    "list": safetensors(b'["__metadata__"]'),
    "metadata-list": safetensors(b'{"__metadata__":["medaug"]}'),
    "metadata-number": safetensors(b'{"__metadata__":{"medaug":7}}'),
    "long-number": safetensors(b'{"__metadata__":{"medaug":' + b"9" * 5000 + b"}}"),
}
"""Weight files by what is absurd about their header."""


def write(folder: Path) -> None:
    """All bombs, below ``folder`` in a folder for each way of reading."""
    gib = gzipped(GIB)
    files = {
        "nifti/terabytes.nii": nifti((32000, 32000, 1000)),
        "nifti/terabytes.nii.gz": gzip.compress(nifti((32000, 32000, 1000))),
        "nifti/lies.nii.gz": gzip.compress(nifti((1000, 1000, 1000), datatype=64)),
        "nifti/extension.nii.gz": gzip.compress(nifti((8, 8, 8), 2e9)) + gib,
        "nifti/version2.nii.gz": gzip.compress(nifti2((2**40, 2**20, 4))),
        "nifti/overflow.nii": nifti2((2**62, 2**62, 4)),
        "nifti/surfaces.nii": nifti2((2, 2, 2), 3001),
        "nifti/more-axes.nii.gz": gzip.compress(nifti((2, 2, 2, 1, 32000, 32000, 32000))),
        "sample/zeros.nii.gz": gib,
        "sample/terabytes.nii.gz": gzip.compress(nifti((32000, 32000, 1000))),
        "sample/lies.nii.gz": gzip.compress(nifti((1000, 1000, 900), datatype=64)),
        "itk/terabytes.mha": b"ObjectType = Image\nNDims = 3\nDimSize = 30000 30000 30000\n"
        b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n",
        "itk/terabytes.nrrd": NRRD + b"sizes: 30000 30000 30000\n"
        b"encoding: raw\n\n",
        "itk/packed.nrrd": NRRD + b"sizes: 30000 30000 3000\n"
        b"encoding: gzip\n\n" + gib,
        "idx/terabytes": idx((2**32 - 1, 2**32 - 1, 2**32 - 1)),
        "idx/wraps": idx((2**31, 2**31, 4)),
        "idx/wraps.gz": gzip.compress(idx((2**31, 2**31, 4))),
        "idx/zeros.gz": gzip.compress(idx((4, 32768, 32768))) + gib,
        "png/terabytes.png": png(1_000_000, 1_000_000),
        "png/comment.png": png(8, 8, text_bomb()),
        "written/terabytes.png": png(1_000_000, 1_000_000),
        "written/large.png": png(14_000, 14_000),
        "dicom/deflated.dcm": deflated(GIB + 2**24),
        "dicom/frames.dcm": dicom(slice_header(8192, 8192, frames=2_000_000_000),
                                  b"1.2.840.10008.1.2.1", element(0x7FE0, 0x10, b"OW", bytes(99))),
        "dicom/pixels.dcm": dicom(slice_header(60000, 60000),
                                  b"1.2.840.10008.1.2.1", element(0x7FE0, 0x10, b"OW", bytes(99))),
        **{f"weights/{name}": content for name, content in WEIGHTS.items()},
        "json/deep": b"[" * 10**6,
        "json/deep-objects": b'{"a":' * 10**6,
        "json/number": b"9" * 10**5,
        "yaml/laughs": ("a0: &a0 [x]\n" + "".join(
            f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))).encode(),
        "yaml/merges": ("a0: &a0 {k: 1}\n" + "".join(
            f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))
        ).encode(),
        "yaml/itself": b"a: &a [*a]\n",
        "yaml/deep": b"[" * 5000,
        "yaml/number": b"a: " + b"9" * 5000,
        "yaml/bytes": b"\xff\xfe\xfd",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, size) + bytes(size) for size in (0, 64)]
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 2**32 - 1) + b"".join(items) + end
    (folder / "series" / "many").mkdir(parents=True)
    for number in range(1, 40):
        content = dicom(slice_header(8000, 8000, number), b"1.2.840.10008.1.2.5", pixels)
        (folder / "series" / "many" / f"{number}.dcm").write_bytes(content)
    shape = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    with zipfile.ZipFile(folder / "arrays", "w") as packed:
        array = b"\x93NUMPY\1\0" + struct.pack("<H", 118) + shape.ljust(117).encode() + b"\n"
        packed.writestr("image.npy", array)


def readers() -> dict[str, Callable[[Path], object]]:
    """The way of reading by the folder of its files."""
    from medaug.core.config import read_yaml
    from medaug.data.formats.dicom_series import read_headers
    from medaug.data.formats.limits import read_arrays
    from medaug.data.formats.readers import read_series, read_volume
    from medaug.data.sources.idx import read_idx
    from medaug.data.sources.pictures.decoding import decode
    from medaug.runtime.files import parse_json
    from medaug.synthesis.writers.nifti import read
    from medaug.synthesis.writers.png import _decode
    from medaug.training.checkpoint import read_tensors

    return {
        "nifti": read_volume,
        "sample": read,
        "itk": read_volume,
        "idx": lambda file: read_idx(file, 3),
        "png": lambda file: decode(file, 1),
        "written": _decode,
        "dicom": lambda file: [read_headers(file), read_series((file, file))],
        "series": lambda file: read_series(tuple(file.iterdir())),
        "weights": read_tensors,
        "json": lambda file: parse_json(file.read_bytes()),
        "yaml": read_yaml,
        "arrays": lambda file: read_arrays(io.BytesIO(file.read_bytes())),
    }


def main(folder: Path) -> None:
    """Read everything under a limit; an allocation that fails is told by its name."""
    known = readers()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    for way, read in known.items():
        place = folder / way
        for file in sorted(place.iterdir()) if place.is_dir() else [place]:
            try:
                read(file)
                told = "was read"
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
            name = str(file.relative_to(folder))
            print(json.dumps([name, told, ROOM + used]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
