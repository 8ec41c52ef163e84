"""A file over HTTP, as long as it takes: over several connections, going on where the last one broke, to the disk.

Addresses and the secrets that go with them stay out of every message. What a redirect leads to (a hub's storage, say)
gets no secret of the server that sent us there.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO, Protocol

from msgspec import Struct, field

from chatport.backends.llama.catalogue import WeightsError

BLOCK = 1 << 18
"""Bytes read at once: a progress bar moves several times a second on a slow line."""
READ_TIMEOUT = 15.0
"""Seconds without a byte after which a connection is taken for dead, as pip has it."""
FRUITLESS_TRIES = 3
"""Connections in a row that brought nothing, before giving up."""
PAUSE = 1.0
"""Seconds before the next connection."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class Progress(Protocol):
    """Where a person sees how far it is."""

    def say(self, sentence: str) -> None:
        """Something that is worth a line."""

    def moved(self, done: int, total: int) -> None:
        """Bytes of the file that are here, and bytes of the whole file."""


class Remote(Struct, frozen=True):
    """Where something is, and what its server is told. Neither belongs into a message: both may hold credentials."""

    address: str
    """http or https."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Headers for this server alone."""


class _Answered(Exception):
    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.status = status
        """The HTTP status that said so, where one did."""


class Unreadable(_Answered):
    """The address gives nothing that we can use."""


class WrongSize(Unreadable):
    """What is there is not as long as it should be, and so another file."""


class Silent(Unreadable):
    """Not one byte came."""


class Interrupted(_Answered):
    """The connection ended before the file did."""


class BrokenOff(WeightsError):
    """The line broke for good after something had come, which is kept."""


def fetch(remote: Remote, part: Path, size: int, progress: Progress) -> None:
    """Reads the file into `part`, over as many connections as it takes while each brings something.

    Raises Unreadable, BrokenOff when the line broke for good (`part` is kept), WeightsError when the disk refuses.
    """
    fruitless, first = 0, size_of(part)
    while True:
        before = size_of(part)
        try:
            _transfer(remote, part, size, progress)
        except Interrupted as error:
            fruitless = 0 if size_of(part) > before else fruitless + 1
            if fruitless < FRUITLESS_TRIES:
                time.sleep(PAUSE)
                continue
            if size_of(part) == first:
                raise Silent from error
            here = f"{size_of(part) / 1e6:.0f} of {size / 1e6:.0f} MB are here"
            raise BrokenOff(f"The download broke off; {here}. Run the command again and it goes on there.") from error
        return


def _transfer(remote: Remote, part: Path, size: int, progress: Progress) -> None:
    """One connection. Raises Interrupted, Unreadable, WeightsError."""
    have = size_of(part)
    if have >= size:
        return
    ranged = {"Range": f"bytes={have}-"} if have else {}
    with network_errors(), opened(remote, READ_TIMEOUT, ranged) as response:
        start, total = _place(response, size)
        if total != size:
            raise WrongSize
        if start not in (0, have):
            raise Unreadable
        _append(response, part, start, total, progress)
    if size_of(part) < total:
        raise Interrupted


def opened(remote: Remote, timeout: float, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """The reply of what is there, behind all redirects; `timeout` in seconds for each step of it.

    Raises what urllib does; `network_errors` translates it.
    """
    plain = {"Accept-Encoding": "identity", "User-Agent": "chatport", **headers}
    request = urllib.request.Request(remote.address, headers=plain)  # noqa: S310  callers let http and https through only
    for name, secret in remote.secrets.items():
        request.add_unredirected_header(name, secret)
    response: http.client.HTTPResponse = _opener().open(request, timeout=timeout)
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Takes the secrets along only to the server that they are for: a repository that was renamed, say."""

    def redirect_request(  # noqa: PLR0913, PLR0917  the base class has it so
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # a Message
        if following is not None and _origin(following.full_url) == _origin(req.full_url):
            for name, secret in req.unredirected_hdrs.items():
                if name != "Host":
                    following.add_unredirected_header(name, secret)
        return following


def _origin(address: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme, parts.netloc


def _opener() -> urllib.request.OpenerDirector:
    """Takes the proxies and certificates that pip's variables name, where they do."""
    authority = next((path for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE") if (path := os.environ.get(name))), None)
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if authority and Path(authority).is_file():
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority)))
    if proxy := os.environ.get("PIP_PROXY"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)


@contextmanager
def network_errors() -> Iterator[None]:
    """What urllib raises, as Interrupted where another try may help, as Unreadable where it can't."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code == 429:
            raise Interrupted(error.code) from error
        raise Unreadable(error.code) from error
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted from error
    except ValueError as error:
        # An address, its own or a redirect's, that urllib can make nothing of.
        raise Unreadable from error


def _place(response: http.client.HTTPResponse, size: int) -> tuple[int, int]:
    """Where in the file the reply begins, and how long the whole file is: a server without ranges starts at 0."""
    if response.status == 206:
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if found is None:
            raise Unreadable
        return int(found[1]), int(found[2])
    return 0, int(response.headers.get("Content-Length") or size)


def _append(response: http.client.HTTPResponse, part: Path, start: int, total: int, progress: Progress) -> None:
    with disk_errors(part):
        out = part.open("r+b" if start else "wb")
    with out:
        out.seek(start)
        while block := response.read(BLOCK):
            with disk_errors(part):
                out.write(block)
                out.flush()
            progress.moved(out.tell(), total)
            if out.tell() > total:
                raise WrongSize
        with disk_errors(part):
            os.fsync(out.fileno())


def size_of(file: Path) -> int:
    """Bytes; 0 for a file that is not there."""
    return file.stat().st_size if file.exists() else 0


def sha256_of(file: Path) -> str:
    """Hexadecimal."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


@contextmanager
def disk_errors(file: Path) -> Iterator[None]:
    """A full or unwritable disk, in a sentence."""
    try:
        yield
    except OSError as error:
        raise WeightsError(f"Can't write {file}: {error.strerror}.") from error


def refuse_full_disk(name: str, needed: int, folder: Path) -> None:
    """Raises WeightsError where the disk has not as many bytes left as `name` needs."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsError(
            f"{name} needs {needed / 1e6:.0f} MB more on the disk, and {folder} has {free / 1e6:.0f} MB left. "
            "Make room, or set CHATPORT_HOME to a folder on another disk."
        )
