"""The model files that are there to be loaded, and what their heads say: enough to list a model without loading it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from chatport.backends.llama.gguf import ModelFileError, read
from chatport.backends.llama.installed import Installed, list_models
from chatport.targets import Feature

Version = tuple[str, Path, int, int]


class ShelvedModel(Struct, frozen=True, kw_only=True):
    """A model file as it is now; another version of it is another one."""

    name: str
    path: Path
    size: int
    """Bytes."""
    changed_ns: int
    """Unix time, nanoseconds."""
    features: frozenset[Feature] = frozenset()
    digest: str = ""
    context: int = 0
    """Tokens that it was made for."""
    token_memory: int = 0
    """Bytes that the engine's cache takes for each token."""
    fault: str | None = None
    """Why it can't be served: a sentence for the log. It may quote the file, which may be any file of this machine."""


def unreadable(model: ShelvedModel) -> str:
    """What clients are told of a model that can't be served."""
    return f"The file of the model {model.name} can't be read as a model; the server's log says why."


class Shelf:
    """The models in a home, as far as they are wanted. A head is read once for each version of a file: a tenth of a
    second and more, and megabytes for that while."""

    def __init__(self, home: Path, wanted: Callable[[Installed], bool]) -> None:
        self._home = home
        self._wanted = wanted
        self._known: dict[Version, ShelvedModel] = {}

    def look(self) -> list[ShelvedModel]:
        """What is there now. Reads from the disk."""
        known: dict[Version, ShelvedModel] = {}
        for model in filter(self._wanted, list_models(self._home)):
            changed_ns = _changed(model.path)
            if changed_ns is not None:
                version = (model.name, model.path, model.size, changed_ns)
                known[version] = self._known.get(version) or _described(model, changed_ns)
        self._known = known
        return list(known.values())


def _changed(file: Path) -> int | None:
    """When, in nanoseconds; None for a file that was removed just now."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def _described(model: Installed, changed_ns: int) -> ShelvedModel:
    from chatport.backends.llama import FEATURES  # noqa: PLC0415  a good part of the program, for where there is a model

    plain = ShelvedModel(name=model.name, path=model.path, size=model.size, changed_ns=changed_ns)
    try:
        head = read(model.path)
    except ModelFileError as error:
        return replace(plain, fault=str(error))
    return replace(
        plain,
        features=FEATURES,
        digest=head.digest,
        context=head.context_length,
        token_memory=head.token_memory,
    )
