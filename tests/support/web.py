"""A server on the loopback that serves real files, and misbehaves when told to."""

import hashlib
import io
import json
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom

Fault = Callable[["Handler", bytes], None]
BLOCK = 4096


@dataclass
class Web:
    """What is served: bytes by path and query, faults to commit in turn, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Fault] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    ranges: bool = True
    tagged: bool = True
    pause_s: float = 0.0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        web = self.server.web
        web.asked.append((self.path, self.headers["Range"]))
        body = web.files.get(self.path)
        if body is None:
            self.head(404, 0)
            return
        if self.command == "HEAD":
            self.head(200, len(body))
        elif self.path in web.always:
            web.always[self.path](self, body)
        elif web.faults[self.path]:
            web.faults[self.path].pop(0)(self, body)
        else:
            self.serve(body)

    def serve(self, body: bytes) -> None:
        """The file, or the part asked for where ranges are served and the file is the same."""
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        asked, web = self.headers["Range"], self.server.web
        matches = self.headers["If-Range"] in (None, tag)
        if asked is None or not web.ranges or not matches:
            self.send(200, body, tag)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(body):
            self.head(416, 0, {"Content-Range": f"bytes */{len(body)}"})
            return
        told = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        self.send(206, body[start:], tag, told)

    def head(self, status: int, length: int | None, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(
        self,
        status: int,
        body: bytes,
        tag: str,
        more: dict[str, str] | None = None,
        stop: int | None = None,
    ) -> None:
        """The body in blocks, or only its first ``stop`` bytes."""
        told = dict(more or {})
        if self.server.web.tagged:
            told["ETag"] = tag
        self.head(status, len(body), told)
        for start in range(0, len(body) if stop is None else stop, BLOCK):
            self.wfile.write(body[start : min(start + BLOCK, stop or len(body))])
            time.sleep(self.server.web.pause_s)


class Server(ThreadingHTTPServer):
    web: Web
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Clients that are killed on the way hang up; that is what is tested."""


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    server = Server(("127.0.0.1", 0), Handler)
    server.web = web
    web.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cut(count: float) -> Fault:
    """Announce the file, or the part asked for, and hang up after some bytes or a share below 1."""

    def fault(handler: Handler, body: bytes) -> None:
        tag, asked = f'"{hashlib.md5(body).hexdigest()}"', handler.headers["Range"]
        asked = asked if handler.server.web.ranges else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        told = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if asked else None
        handler.send(206 if asked else 200, body[start:], tag, told, stop=_some(count, body))
        handler.close_connection = True

    return fault


def _some(count: float, body: bytes) -> int:
    return int(count * len(body)) if count < 1 else int(count)


def short(share: float) -> Fault:
    """A truncated file that looks like a whole answer."""
    return lambda handler, body: handler.send(200, body[: _some(share, body)], '"short"')


def unending(share: float) -> Fault:
    """A truncated file without a length: the end of the connection is its only end."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.head(200, None, {"Connection": "close"})
        handler.wfile.write(body[: _some(share, body)])
        handler.close_connection = True

    return fault


def status(code: int, more: dict[str, str] | None = None) -> Fault:
    return lambda handler, body: handler.head(code, 0, more)


def instead(other: bytes) -> Fault:
    return lambda handler, body: handler.send(200, other, '"other"')


def empty(handler: Handler, body: bytes) -> None:
    handler.head(200, 0)


def silent(handler: Handler, body: bytes) -> None:
    """Announce the file and say nothing more for a while."""
    handler.head(200, len(body))
    time.sleep(1.5)
    handler.close_connection = True


def drip(handler: Handler, body: bytes) -> None:
    """A few bytes every now and then, far too slowly."""
    handler.head(200, len(body))
    for k in range(60):
        handler.wfile.write(body[k : k + 1])
        time.sleep(0.05)
    handler.close_connection = True


def elsewhere(url: str) -> Fault:
    return lambda handler, body: handler.head(302, 0, {"Location": url})


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(
                zipfile.ZipInfo(name, (2020, 9, 10, 0, 0, 0)), content, zipfile.ZIP_DEFLATED
            )
    return target.getvalue()


LABELS = "/labels/TCIA_pancreas_labels-02-05-2017-1.zip"
LIST = "/v4/getSeries?Collection=Pancreas-CT"


def image(uid: str) -> str:
    return f"/v4/getImage?SeriesInstanceUID={uid}&NewFileNames=Yes"


@dataclass
class Nbia:
    """A collection as NBIA serves it, with what its parts are called."""

    files: dict[str, bytes]
    uids: dict[str, str]
    slices: dict[str, dict[str, bytes]]
    rows: list[dict[str, Any]]

    def web(self) -> Web:
        return Web(dict(self.files))


def nbia(root: Path) -> Nbia:
    """The scans and labels below ``root``, with the two withdrawn scans and a segmentation."""
    files, uids, slices, rows = {}, {}, {}, []
    for patient in sorted((root / "Pancreas-CT").iterdir()):
        paths = sorted(patient.rglob("*.dcm"))
        uid = str(pydicom.dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
        content = {path.name: path.read_bytes() for path in paths}
        uids[patient.name], slices[patient.name] = uid, content
        files[image(uid)] = zipped({"LICENSE": b"CC BY 3.0\n", **content})
        rows.append(_row(uid, patient.name, len(content), sum(map(len, content.values()))))
    rows.append(_row("1.2.3.25", "PANCREAS_0025", 20, 10**12))
    rows.append(_row("1.2.3.70", "PANCREAS_0070", 20, 10**12))
    rows.append({**_row("1.2.3.1", "PANCREAS_0001", 1, 5000), "Modality": "SEG"})
    folder = "TCIA_pancreas_labels-02-05-2017"
    labels = {f"{folder}/{p.name}": p.read_bytes() for p in sorted((root / folder).iterdir())}
    labels[f"{folder}/label0025.nii.gz"] = labels[f"{folder}/label0002.nii.gz"]
    labels[f"__MACOSX/{folder}/._label0001.nii.gz"] = b"\0\5\x16\7"
    files[LABELS] = zipped(labels)
    files[LIST] = json.dumps(rows).encode()
    return Nbia(files, uids, slices, rows)


def _row(uid: str, patient: str, images: int, size: int) -> dict[str, Any]:
    return {
        "SeriesInstanceUID": uid,
        "StudyInstanceUID": f"{uid}.1",
        "Modality": "CT",
        "SeriesDescription": "Pancreas",
        "Collection": "Pancreas-CT",
        "PatientID": patient,
        "ImageCount": images,
        "FileSize": size,
        "LicenseURI": "http://creativecommons.org/licenses/by/3.0/",
    }


def uid_of(path: str) -> str | None:
    """The series that a request asks for."""
    return parse_qs(urlsplit(path).query).get("SeriesInstanceUID", [None])[0]
