"""What the two hubs say of a file: how long it is, its sha256, and where it can be read.

Hugging Face tells all of a repository's files in one reply (`/api/models/OWNER/REPO?blobs=true`), ModelScope too
(`/api/v1/models/OWNER/REPO/repo/files`), each with size and sha256; both send whoever reads a file on to a storage
elsewhere. Their own clients (huggingface_hub, modelscope) were weighed and not taken: together they bring some twenty
packages, each keeps files in a layout of its own, and a download that one began the other can't go on with.

Mirrors of Hugging Face speak the same: HF_ENDPOINT names one. An endpoint's address, and a token, are in no message.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from chatport.backends.llama.catalogue import HubFile, Source, WeightsError
from chatport.backends.llama.download import Interrupted, Remote, Unreadable, network_errors, opened
from chatport.backends.llama.names import SUFFIX, hub_file

PROBE_SECONDS = 5.0
"""How long a hub may take to say what it has, before it counts as out of reach."""
LISTING_BYTES = 16 << 20
"""The longest reply about a repository that is read. One with thousands of files stays below 2 MB."""
SHOWN = 30
"""Files named in an error at most."""
REVISION = "master"
"""ModelScope's name of what is current."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)

Reply = TypeVar("Reply")


class HubError(Exception):
    """A hub can't give a file: a clause that goes behind the hub's name."""


class Offer(Struct, frozen=True, kw_only=True):
    """A file as a hub has it."""

    hub: Hub
    file: HubFile
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""
    remote: Remote


class Stored(Struct, frozen=True, kw_only=True):
    """A file of a repository."""

    path: str
    size: int | None
    sha256: str | None
    revision: str


class Hub(ABC):
    """One of the hubs, or a mirror of it."""

    source: ClassVar[Source]
    name: ClassVar[str]
    default: ClassVar[str]
    variable: ClassVar[str]
    """Names another endpoint than the default one."""
    token_variable: ClassVar[str]

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._endpoint = _endpoint(environ, self.variable, self.default)
        self._token = environ.get(self.token_variable, "").strip()
        self.title = f"the mirror in {self.variable}" if environ.get(self.variable) else self.name
        """What it is called inside a sentence."""

    def offer(self, file: HubFile) -> Offer:
        """What it says of the file. Raises HubError."""
        stored = _chosen(self.files(file.repository), file)
        sha256 = (stored.sha256 or "").lower()
        if not stored.size or not _SHA256.fullmatch(sha256):
            raise HubError(f"does not say size and sha256 of {file.path}, without which it can't be checked")
        return Offer(hub=self, file=file, size=stored.size, sha256=sha256, remote=self._content(file, stored.revision))

    @abstractmethod
    def files(self, repository: str) -> list[Stored]:
        """What a repository holds. Raises HubError."""

    @abstractmethod
    def refusal(self, status: int | None, repository: str) -> HubError:
        """Why it does not tell, or give, what was asked of it."""

    @abstractmethod
    def _content(self, file: HubFile, revision: str) -> Remote:
        """Where the file can be read."""


class HuggingFace(Hub):
    """huggingface.co."""

    source = Source.HUGGINGFACE
    name = "Hugging Face"
    default = "https://huggingface.co"
    variable = "HF_ENDPOINT"
    token_variable = "HF_TOKEN"  # noqa: S105  its name, not a token

    def files(self, repository: str) -> list[Stored]:
        told = _asked(self, self._remote(f"api/models/{quote(repository)}?blobs=true"), repository, _HuggingFaceModel)
        return [
            Stored(
                path=file.rfilename,
                size=file.lfs.size if file.lfs else file.size,
                sha256=file.lfs.sha256 if file.lfs else None,
                revision=told.sha or "main",
            )
            for file in told.siblings
        ]

    def refusal(self, status: int | None, repository: str) -> HubError:
        match status:
            case 401 if self._token:
                return HubError("does not accept the token in HF_TOKEN, even where none is needed: renew or unset it")
            case 401 | 404:
                hint = "" if self._token else ". A private or gated one needs an access token of yours in HF_TOKEN"
                return HubError(f"has no repository {repository} for everybody{hint}")
            case 403:
                return HubError(
                    f"keeps {repository} behind a gate: accept its terms on its page there, and set HF_TOKEN to an "
                    "access token of yours that may read it"
                )
        return _refused(status)

    def _content(self, file: HubFile, revision: str) -> Remote:
        return self._remote(f"{quote(file.repository)}/resolve/{quote(revision)}/{quote(file.path)}")

    def _remote(self, path: str) -> Remote:
        return Remote(f"{self._endpoint}/{path}", {"Authorization": f"Bearer {self._token}"} if self._token else {})


class ModelScope(Hub):
    """modelscope.cn."""

    source = Source.MODELSCOPE
    name = "ModelScope"
    default = "https://modelscope.cn"
    variable = "MODELSCOPE_ENDPOINT"
    token_variable = "MODELSCOPE_API_TOKEN"  # noqa: S105  its name, not a token

    def files(self, repository: str) -> list[Stored]:
        remote = self._remote(repository, "repo/files", {"Revision": REVISION, "Recursive": "True"})
        told = _asked(self, remote, repository, _ModelScopeReply)
        if told.data is None:
            raise self.refusal(404, repository)
        return [
            Stored(path=file.path, size=file.size, sha256=file.sha256, revision=REVISION)
            for file in told.data.files
            if file.kind != "tree"
        ]

    def refusal(self, status: int | None, repository: str) -> HubError:
        if status in (401, 403, 404):
            hint = "" if self._token else ". A private one needs an access token of yours in MODELSCOPE_API_TOKEN"
            return HubError(f"has no repository {repository} for everybody{hint}")
        return _refused(status)

    def _content(self, file: HubFile, revision: str) -> Remote:
        return self._remote(file.repository, "repo", {"Revision": revision, "FilePath": file.path})

    def _remote(self, repository: str, path: str, query: Mapping[str, str]) -> Remote:
        # As its own client does: older parts of the service know the cookie, newer ones the header.
        secrets = {"Authorization": f"Bearer {self._token}", "Cookie": f"m_session_id={self._token}"}
        address = f"{self._endpoint}/api/v1/models/{quote(repository)}/{path}?{urlencode(query)}"
        return Remote(address, secrets if self._token else {})


class _Lfs(Struct):
    sha256: str
    size: int


class _Sibling(Struct):
    rfilename: str
    size: int | None = None
    lfs: _Lfs | None = None


class _HuggingFaceModel(Struct):
    """What is needed of Hugging Face's reply about a repository."""

    sha: str | None = None
    """The commit."""
    siblings: list[_Sibling] = []


class _ModelScopeFile(Struct, rename="pascal"):
    path: str
    kind: str = msgspec.field(name="Type", default="blob")
    size: int | None = None
    sha256: str | None = None


class _ModelScopeFiles(Struct, rename="pascal"):
    files: list[_ModelScopeFile] = []


class _ModelScopeReply(Struct, rename="pascal"):
    """What is needed of ModelScope's reply. No data, with status 200, may be its way to say that it has nothing."""

    data: _ModelScopeFiles | None = None


def hubs_of(environ: Mapping[str, str], source: Source | None = None) -> tuple[Hub, ...]:
    """The hubs to ask, preferred ones first; only the one that `source` names. Raises WeightsError."""
    hubs: tuple[Hub, ...] = (HuggingFace(environ), ModelScope(environ))
    return tuple(hub for hub in hubs if source in (None, hub.source))


def _endpoint(environ: Mapping[str, str], variable: str, default: str) -> str:
    address = environ.get(variable) or default
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise WeightsError(
            f"{variable} is no address that can be used; allowed: https://HOST or http://HOST, without a user name."
        )
    return address.rstrip("/")


def _asked(hub: Hub, remote: Remote, repository: str, kind: type[Reply]) -> Reply:
    """A hub's reply about a repository. Raises HubError."""
    try:
        with network_errors(), opened(remote, PROBE_SECONDS, {"Accept": "application/json"}) as response:
            body = response.read(LISTING_BYTES + 1)
        return msgspec.json.decode(body, type=kind)
    except Interrupted as error:
        raise HubError(f"is in trouble (status {error.status})" if error.status else "is out of reach") from error
    except Unreadable as error:
        raise hub.refusal(error.status, repository) from error
    except msgspec.DecodeError as error:
        raise HubError("says of its files what we can't read; is it what its address promises?") from error


def _refused(status: int | None) -> HubError:
    return HubError(f"refuses, with status {status}" if status else "gives out something that we can't use")


def whole_models(repository: str, files: list[Stored]) -> list[str]:
    """Paths of those that hold a whole model, and that can be called by a name of ours.

    No part of a split model, no projector for images, and nothing by which a hub could lead us elsewhere.
    """
    return [file.path for file in files if _is_model(file.path) and hub_file(f"{repository}/{file.path}") is not None]


def _is_model(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.endswith(SUFFIX) and not name.startswith(("mmproj", "imatrix")) and not is_shard(path)


def is_shard(path: str) -> bool:
    """Whether the file is one part of a model that was split."""
    return _SHARD.search(path) is not None


def listed(paths: list[str], repository: str | None = None) -> str:
    """The files for a sentence, each behind the repository's name where one is given."""
    shown = [f"{repository}/{path}" if repository else path for path in paths[:SHOWN]]
    return ", ".join(shown) + (f", and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "") or "none"


def _chosen(files: list[Stored], file: HubFile) -> Stored:
    for stored in files:
        if stored.path == file.path:
            return stored
    others = listed(whole_models(file.repository, files))
    raise HubError(f"has no {file.path} in {file.repository}. Its models of one file: {others}")
