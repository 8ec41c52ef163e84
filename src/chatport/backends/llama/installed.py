"""The model files that are here: in CHATPORT_HOME/models, and in installed packages.

A model of the catalogue is `models/NAME.gguf`, any other file of a hub `models/OWNER/REPO/FILE.gguf`. A file under its
final name is always whole (`weights.py`). A running server looks here, so nothing of what fetches files is imported.

Anybody may put anything there, and one odd entry must not hide the others: what is no regular file, or has a name that
no model may have, is passed over.
"""

from __future__ import annotations

import difflib
import importlib.util
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from chatport.backends.llama.catalogue import KNOWN, KnownModel, WeightsError
from chatport.backends.llama.names import SUFFIX, hub_file, is_fit_name, name_of


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
    if (found := installed(wanted, home)) is not None:
        return found.path
    raise WeightsError(_missing(wanted, home))


def _existing(file: Path) -> Path:
    if file.is_file():
        return file
    beside = sorted(found.name for found in file.parent.glob("*.gguf"))[:8]
    hint = f"The folder has: {', '.join(beside)}." if beside else "Its folder has no .gguf file."
    raise WeightsError(f"There is no model file {file}. {hint}")


def installed(wanted: str, home: Path) -> Installed | None:
    """The model of this name; None where it is not here."""
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
    return f'There is no model "{wanted}".{suggestion(wanted)} {what_is_here(home)} A .gguf file is named by its path.'


def what_is_here(home: Path) -> str:
    """What may be named, for the end of an error."""
    names = ", ".join(model.name for model in list_models(home)) or "none"
    return f"Models here: {names}. To be pulled: {', '.join(KNOWN)}, and owner/repo/file.gguf of a hub."


def suggestion(name: str) -> str:
    """The known name that is nearest, as a question; empty where none is near."""
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
    named = [*_own_files(folder), *_hub_files(folder)]
    here = [model for name, file in named if (model := _installed_at(name, file))]
    names = {model.name for model in here}
    wheels = [model for model in KNOWN.values() if isinstance(model, KnownModel) and model.name not in names]
    found = ((model, packaged_file(model)) for model in wheels)
    return here + [Installed(name=it.name, path=file, size=it.size, packaged=True) for it, file in found if file]


def _installed_at(name: str, file: Path) -> Installed | None:
    """None for what is no regular file, a link to one included, and for what was removed just now."""
    try:
        found = file.stat()
    except OSError:
        return None
    return Installed(name=name, path=file, size=found.st_size) if stat.S_ISREG(found.st_mode) else None


def _own_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.glob("*.gguf")):
        if is_fit_name(file.stem):
            yield file.stem, file


def _hub_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.glob("*/*/**/*.gguf")):
        found = hub_file(file.relative_to(folder).as_posix())
        if found is not None:
            yield name_of(found), file


def packaged_file(model: KnownModel) -> Path | None:
    """The file in an installed package. find_spec does not import it, which would fail without its dependencies."""
    package, _, inner = model.member.partition("/")
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    files = (Path(folder) / inner for folder in folders)
    return next((file for file in files if file.is_file() and file.stat().st_size == model.size), None)
