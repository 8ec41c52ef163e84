"""A model hub on loopback: metadata as Hugging Face and as ModelScope tell them, files from a storage elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.downloads import FileHandler, Line, listening

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories, and what goes wrong with them."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        """Repository to path to content."""
        self.line = Line()
        """How the storage sends."""
        self.door = Line()
        """How the hub itself answers; only its headers and its end are used."""
        self.body: bytes | None = None
        """What every request about a repository gets instead of the truth."""
        self.silent = False
        """Takes requests and answers none."""
        self.status: int | None = None
        """What every request about a repository is answered with."""
        self.gate: int | None = None
        """What a request for a file is answered with, though the repository is told of."""
        self.token: str | None = None
        """Without it, in the way that clients of the hub give it, there is nothing."""
        self.told: dict[str, Any] = {}
        """What the metadata say instead of the truth: `size`, `sha256`."""
        self.renamed: dict[str, str] = {}
        """Repositories that have moved, and where to."""
        self.url = ""
        self.storage = ""

    def described(self, content: bytes) -> dict[str, Any]:
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | self.told


class Storage(FileHandler):
    """Where a hub sends those who read a file: `/REPOSITORY/PATH`."""

    hub: Hub
    line: Line

    def do_GET(self) -> None:
        repository, _, path = unquote(self.path[1:]).partition("//")
        self.answer_file(self.hub.repositories[repository][path], self.line)


class Front(FileHandler):
    """Both hubs' ways to ask."""

    hub: Hub
    door: Line

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.door.headers.append(dict(self.headers.items()))
        if self.hub.silent:
            self.door.closing.wait(60)
            return
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if self.hub.token and not self.knows_token():
            self.refuse(401)
        elif found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", path):
            self.tell(found[1], self.as_modelscope)
        elif found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo", path):
            self.send_on(found[1], query["FilePath"][0])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self.tell(found[1], self.as_huggingface)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self.send_on(found[1], found[2])
        else:
            self.refuse(404)

    def knows_token(self) -> bool:
        given = self.headers.get("Authorization", ""), self.headers.get("Cookie", "")
        return given[0] == f"Bearer {self.hub.token}" or given[1] == f"m_session_id={self.hub.token}"

    def refuse(self, status: int) -> None:
        self.answer(status, b'{"error":"no"}')

    def tell(self, repository: str, form: Any) -> None:
        if self.hub.status is not None:
            self.refuse(self.hub.status)
        elif self.hub.body is not None:
            self.answer(200, self.hub.body)
        elif new := self.hub.renamed.get(repository):
            self.answer(307, b"", {"Location": self.path.replace(repository, new)})
        elif repository not in self.hub.repositories:
            self.refuse(404)
        else:
            self.answer(200, json.dumps(form(repository)).encode(), {"Content-Type": "application/json"})

    def as_huggingface(self, repository: str) -> dict[str, Any]:
        files = self.hub.repositories[repository]
        siblings: list[dict[str, Any]] = [{"rfilename": "README.md", "size": 5, "blobId": "0" * 40}]
        for path, content in files.items():
            told = self.hub.described(content)
            lfs = told | {"pointerSize": 134} if told["sha256"] else None
            siblings.append(
                {"rfilename": path, "size": told["size"], "blobId": "0" * 40} | ({"lfs": lfs} if lfs else {})
            )
        return {"id": repository, "sha": COMMIT, "gated": False, "private": False, "siblings": siblings}

    def as_modelscope(self, repository: str) -> dict[str, Any]:
        files: list[dict[str, Any]] = [{"Name": "sub", "Path": "sub", "Type": "tree", "Size": 0, "Sha256": ""}]
        for path, content in self.hub.repositories[repository].items():
            told = self.hub.described(content)
            name = path.rpartition("/")[2]
            entry = {"Name": name, "Path": path, "Type": "blob", "Size": told["size"], "Sha256": told["sha256"]}
            files.append(entry | {"Revision": COMMIT, "IsLFS": True})
        return {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": files}}

    def send_on(self, repository: str, path: str) -> None:
        if self.hub.gate is not None:
            self.refuse(self.hub.gate)
            return
        content = self.hub.repositories.get(repository, {}).get(path)
        if content is None:
            self.refuse(404)
            return
        told = self.hub.described(content)
        linked = {"X-Linked-Size": str(told["size"]), "X-Linked-Etag": f'"{told["sha256"]}"', "X-Repo-Commit": COMMIT}
        self.answer(302, b"", linked | {"Location": f"{self.hub.storage}/{repository}//{path.replace(' ', '%20')}"})


@contextmanager
def hub_listening() -> Iterator[Hub]:
    """A hub without repositories."""
    hub = Hub()
    with listening(Storage, hub=hub, line=hub.line) as storage, listening(Front, hub=hub, door=hub.door) as front:
        hub.url, hub.storage = front, storage
        yield hub
