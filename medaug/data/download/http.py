"""Files over HTTP that arrive whole: retried, resumed where the server can, checked at the end.

The one module that opens a connection.  A redirect is followed, to another host too, since mirrors
and stores of large files work so; never from https to http.  A proxy of the environment is used.
"""

import hashlib
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from medaug.core.errors import DownloadError
from medaug.data.download.settings import DownloadConfig
from medaug.runtime.files import explaining, parse_json, write_json

_BLOCK = 2**16

_REDIRECTS = 5

_ANSWER_BYTES = 2**26

_PAUSE_AT_MOST_S = 60.0

_LATER = {408, 425, 429, 500, 502, 503, 504}

_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")

Answer = TypeVar("Answer")


class SpoiledError(DownloadError):
    """What arrived is damaged; another attempt may bring it whole."""


class UnreachableError(DownloadError):
    """The server does not answer at all; what else is wanted of it will not come either."""


class _AgainError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, reason: str, reached: bool = True, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reached, self.wait_s = reached, wait_s


@dataclass
class _Partial:
    """A file on its way: its bytes so far, and what must still be true of the rest.

    Without a validator of the server's the rest may be of another version of the file: it is then
    asked for only where a checksum will tell (``known``).
    """

    path: Path
    url: str
    known: bool

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def restart(self) -> None:
        with explaining(self.path):
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self) -> dict[str, str]:
        """Those that ask for the missing rest, or none."""
        size, validator = self.size(), None
        try:
            content = parse_json(self.note.read_text())
            same = content["url"] == self.url
            validator = content["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not size or not same or not (validator or self.known):
            return {}
        asked = {"Range": f"bytes={size}-"}
        return asked | ({"If-Range": str(validator)} if validator else {})

    def begin(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Note what the bytes to come belong to."""
        etag = answer.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
        self.restart()
        write_json(self.note, {"url": self.url, "validator": validator})


class Client:
    """Asks servers for files as patiently as ``settings`` say."""

    def __init__(self, settings: DownloadConfig) -> None:
        self.settings = settings
        timeout = urllib3.Timeout(connect=settings.timeout_s, read=settings.timeout_s)
        self._direct = urllib3.PoolManager(timeout=timeout, retries=False)
        self._proxies = {
            scheme: urllib3.ProxyManager(address, timeout=timeout, retries=False)
            for scheme, address in urllib.request.getproxies().items()
            if scheme in ("http", "https")
        }

    def ask(self, url: str) -> Any:
        """The JSON that answers a question; None for an empty answer, which means no result.

        Raises:
            DownloadError: it does not come, is not JSON, or is larger than 64 MiB.
        """

        def once() -> Any:
            body = bytearray()
            with self._open(url, {}) as answer:
                for block in self._blocks(answer, url, decode=True):
                    body += block
                    if len(body) > _ANSWER_BYTES:
                        raise DownloadError(f"{url}: answers with more than {_ANSWER_BYTES} bytes")
            if not body.strip():
                return None
            try:
                return parse_json(body)
            except (ValueError, RecursionError) as error:
                raise _AgainError("the answer is not JSON") from error

        return self._persist(url, once)

    def size(self, url: str) -> int | None:
        """Bytes of the file at ``url``, where the server tells.

        Raises:
            DownloadError: the server does not answer, or has no such file.
        """

        def once() -> int | None:
            with self._open(url, {}, "HEAD") as answer:
                return _length(answer)

        return self._persist(url, once)

    def fetch(
        self,
        url: str,
        path: Path,
        arrived: Callable[[int], object],
        check: Callable[[Path], Answer],
        known: bool,
    ) -> Answer:
        """Bring the file at ``url`` to ``path``, going on with what is there of it.

        Args:
            url: its address.
            path: in a folder for things on their way; what is left there after a kill is used.
            arrived: told of the bytes as they come.
            check: looks at the whole file; raises `SpoiledError` where another attempt may help.
            known: ``check`` would notice if two versions of the file were patched together.

        Returns:
            What ``check`` returns.

        Raises:
            DownloadError: the server does not have it, or too many attempts in a row failed.
            OutputError: the disk does not take it.
        """
        partial = _Partial(path, url, known)

        def once() -> Answer:
            self._transfer(partial, arrived)
            try:
                return check(path)
            except SpoiledError as error:
                partial.restart()
                raise _AgainError(str(error)) from error

        return self._persist(url, once, partial.size)

    def _transfer(self, partial: _Partial, arrived: Callable[[int], object]) -> None:
        """Bring what is missing of ``partial``, or all of it."""
        asked = partial.headers()
        with self._open(partial.url, asked) as answer:
            there = partial.size() if answer.status in (206, 416) else 0
            if answer.status in (206, 416):
                start, total = _range(answer)
                if answer.status == 416 and total == there > 0:
                    return
                if answer.status == 416 or start != there:
                    partial.restart()
                    raise _AgainError("the server sends another part than was asked for")
            else:
                partial.begin(answer)
                total = None
            length = _length(answer)
            count = 0
            with explaining(partial.path), partial.path.open("ab") as file:
                for block in self._blocks(answer, partial.url, decode=False):
                    count += len(block)
                    file.write(block)
                    arrived(len(block))
                file.flush()
                os.fsync(file.fileno())
        whole = total if total is not None else (None if length is None else there + length)
        if whole is not None and there + count != whole:
            raise _AgainError(f"cut off after {there + count} of {whole} bytes")
        if there + count == 0:
            partial.restart()
            raise _AgainError("an empty answer: the server has no such thing, or not now")

    def _persist(
        self, url: str, once: Callable[[], Answer], size: Callable[[], int] = lambda: 0
    ) -> Answer:
        """Attempt ``once`` until it succeeds; those in a row that make nothing larger count."""
        failed, largest = 0, size()
        while True:
            try:
                return once()
            except _AgainError as error:
                failed = 1 if size() > largest else failed + 1
                largest = max(largest, size())
                if failed >= self.settings.attempts:
                    kind = DownloadError if error.reached else UnreachableError
                    times = "" if failed == 1 else f", {failed} times in a row"
                    raise kind(
                        f"{url}: {error}{times}; run the same command again later, it goes on "
                        "where it stopped"
                    ) from error
                wait_s = max(self.settings.pause_s * 2 ** (failed - 1), error.wait_s)
                time.sleep(min(wait_s, _PAUSE_AT_MOST_S))

    @contextmanager
    def _open(
        self, url: str, headers: dict[str, str], method: str = "GET"
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The server's answer, its body still to be read; redirects are followed."""
        here = url
        for _ in range(_REDIRECTS + 1):
            with self._explaining(here):
                answer = self._request(method, here, headers)
            try:
                target = answer.get_redirect_location()
                if not target:
                    _check_status(answer, here)
                    yield answer
                    return
                here = _followed(here, str(target))
            finally:
                answer.close()
        raise DownloadError(f"{url}: redirected more than {_REDIRECTS} times")

    def _request(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        place = urlsplit(url)
        proxy = self._proxies.get(place.scheme)
        if proxy is not None and not urllib.request.proxy_bypass(place.netloc):
            pool: urllib3.PoolManager = proxy
        else:
            pool = self._direct
        headers = {"Accept-Encoding": "identity", "User-Agent": "medaug", **headers}
        return pool.request(method, url, headers=headers, redirect=False, preload_content=False)

    def _blocks(self, answer: urllib3.BaseHTTPResponse, url: str, decode: bool) -> Iterator[bytes]:
        """The body as it comes, until its end, a lost connection or a crawl."""
        since, count = time.monotonic(), 0
        while True:
            with self._explaining(url):
                block = answer.read1(_BLOCK, decode_content=decode)
            if not block:
                return
            yield block
            count += len(block)
            passed = time.monotonic() - since
            if passed >= self.settings.timeout_s:
                if count < self.settings.least_bytes_s * passed:
                    raise _AgainError(f"only {count} bytes came in {passed:.0f} s")
                since, count = time.monotonic(), 0

    @contextmanager
    def _explaining(self, url: str) -> Iterator[None]:
        """Turn what can happen on the way into a reason to try again, or into a sentence."""
        try:
            yield
        except LocationParseError as error:
            raise DownloadError(f"{url}: not an address of a server") from error
        except SSLError as error:
            raise UnreachableError(
                f"{url}: the server's certificate is not accepted ({error})"
            ) from error
        except (NewConnectionError, ProxyError) as error:
            raise _AgainError("the server cannot be reached", reached=False) from error
        except (ConnectTimeoutError, ReadTimeoutError) as error:
            reason = f"nothing came for {self.settings.timeout_s:g} s"
            raise _AgainError(reason, reached=isinstance(error, ReadTimeoutError)) from error
        except (HTTPError, OSError) as error:
            raise _AgainError("the connection was lost") from error


def _check_status(answer: urllib3.BaseHTTPResponse, url: str) -> None:
    if answer.status in (200, 206, 416):
        return
    if answer.status in _LATER:
        after = answer.headers.get("Retry-After", "")
        raise _AgainError(
            f"the server answers {answer.status}", wait_s=float(after) if after.isdigit() else 0.0
        )
    raise DownloadError(f"{url}: the server answers {answer.status}; is the address right?")


def _followed(here: str, target: str) -> str:
    there = urljoin(here, target)
    scheme = urlsplit(there).scheme
    if scheme not in ("http", "https") or (here.startswith("https:") and scheme != "https"):
        raise DownloadError(f"{here}: redirected to {there}, which is not https")
    return there


def _length(answer: urllib3.BaseHTTPResponse) -> int | None:
    told = answer.headers.get("Content-Length", "")
    return int(told) if told.isdigit() else None


def _range(answer: urllib3.BaseHTTPResponse) -> tuple[int | None, int | None]:
    """First byte and total of a partial answer, None where it does not tell."""
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    start, total = match[1], match[2]
    return int(start) if start else None, None if total == "*" else int(total)


# Is a file what was published?


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def agrees(path: Path, wanted: str) -> bool:
    """Whether ``path`` has the digest ``wanted``: MD5 or SHA-256, by its length."""
    return digest_of(path, _kind(wanted)) == wanted


def check(path: Path, wanted: str | None) -> None:
    """Compare ``path`` with its digest, if there is one.

    Raises:
        SpoiledError: they differ.
    """
    if wanted is not None and (found := digest_of(path, _kind(wanted))) != wanted:
        name = "MD5" if len(wanted) == 32 else "SHA-256"
        raise SpoiledError(
            f"what arrived has the {name} {found}, published is {wanted}; if the address is one "
            "you trust, set download.checksums"
        )


def _kind(wanted: str) -> str:
    return "md5" if len(wanted) == 32 else "sha256"
