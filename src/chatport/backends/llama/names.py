"""How models are called: by a name of the catalogue, or as `owner/repo/file`, which is a file in a hub's repository.

A name of the second kind is also the file's place below the models folder. So its parts are held to what is harmless
there: no `..`, nothing hidden, nothing that a file system or a terminal reads in its own way.
"""

from __future__ import annotations

import re

from chatport.backends.llama.catalogue import HubFile

SUFFIX = ".gguf"
PART_LENGTH = 200
"""Characters in one part of a name: file systems allow 255 bytes, of which a download's own ending takes some."""

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNFIT = re.compile(r"[\\:*?\"<>|]")


def hub_file(wanted: str) -> HubFile | None:
    """The file that `owner/repo/file` names, with or without ".gguf"; None for what has another form."""
    owner, _, rest = wanted.partition("/")
    repo, _, path = rest.partition("/")
    parts = path.removesuffix(SUFFIX).split("/")
    if not is_repository(f"{owner}/{repo}") or not all(is_fit_name(part) for part in parts):
        return None
    return HubFile(f"{owner}/{repo}", path.removesuffix(SUFFIX) + SUFFIX)


def is_repository(wanted: str) -> bool:
    """Whether it has the form `owner/repo`."""
    parts = wanted.split("/")
    return len(parts) == 2 and all(_OWNER.fullmatch(part) and is_fit_name(part) for part in parts)


def name_of(file: HubFile) -> str:
    """What the file is called here."""
    return str(file).removesuffix(SUFFIX)


def is_fit_name(part: str) -> bool:
    """Whether a name, or a part of one, is harmless as a file's name, on a terminal and in a reply's JSON."""
    sized = 0 < len(part) <= PART_LENGTH and part == part.strip()
    return sized and part.isprintable() and not part.startswith(".") and not _UNFIT.search(part)
