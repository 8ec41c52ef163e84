"""The endpoints of stored completions: what reaches the rules of §14, and what comes back."""

from __future__ import annotations

from typing import Any, cast

import pytest

from chatport.policy.keys import Caller
from chatport.policy.stored import StoredCompletions
from chatport.wire.stored import CompletionDeleted, CompletionList, CompletionQuery, MessageList, Page
from support.memory_port import MemoryPort
from support.raw_http import Reply, request
from support.site import ALICE, FakeServices

PATH = "/v1/chat/completions"


class Recorder:
    """Stands in for the rules: remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def list(self, caller: Caller, query: CompletionQuery) -> CompletionList:
        self.asked.append(("list", caller, query))
        return CompletionList(data=[], first_id=None, last_id=None, has_more=False)

    async def messages(self, caller: Caller, completion: str, page: Page) -> MessageList:
        self.asked.append(("messages", caller, completion, page))
        return MessageList(data=[], first_id=None, last_id=None, has_more=False)

    async def get(self, caller: Caller, completion: str) -> dict[str, str]:
        self.asked.append(("get", caller, completion))
        return {"id": completion}

    async def update_metadata(
        self, caller: Caller, completion: str, metadata: dict[str, str] | None
    ) -> dict[str, object]:
        self.asked.append(("update", caller, completion, metadata))
        return {"id": completion, "metadata": metadata}

    async def delete(self, caller: Caller, completion: str) -> CompletionDeleted:
        self.asked.append(("delete", caller, completion))
        return CompletionDeleted(id=completion)


@pytest.fixture
def stored(services: FakeServices) -> Recorder:
    recorder = Recorder()
    services.stored = cast("StoredCompletions", recorder)
    return recorder


async def ask(port: MemoryPort, method: str, target: str, body: bytes = b"") -> Reply:
    (reply,) = await port.exchange(request(method, target, body))
    return reply


async def test_list(port: MemoryPort, stored: Recorder) -> None:
    reply = await ask(port, "GET", f"{PATH}?metadata[a%20b]=c&limit=5&order=desc&after=x&model=m")
    query = CompletionQuery(after="x", limit=5, order="desc", model="m", metadata={"a b": "c"})
    assert stored.asked == [("list", ALICE, query)]
    assert reply.json == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_messages(port: MemoryPort, stored: Recorder) -> None:
    assert (await ask(port, "GET", f"{PATH}/chatcmpl-1/messages?limit=2")).status == 200
    assert stored.asked == [("messages", ALICE, "chatcmpl-1", Page(limit=2))]


async def test_get_and_delete(port: MemoryPort, stored: Recorder) -> None:
    assert (await ask(port, "GET", f"{PATH}/a%2Fb")).json == {"id": "a/b"}
    (_, deleted) = await port.exchange(request("DELETE", f"{PATH}/c"))
    assert deleted.json == {"object": "chat.completion.deleted", "id": "c", "deleted": True}
    assert stored.asked == [("get", ALICE, "a/b"), ("delete", ALICE, "c")]


@pytest.mark.parametrize(("body", "metadata"), [(b'{"metadata":{"a":"b"}}', {"a": "b"}), (b'{"metadata":null}', None)])
async def test_update(port: MemoryPort, stored: Recorder, body: bytes, metadata: dict[str, str] | None) -> None:
    assert (await ask(port, "POST", f"{PATH}/c", body)).json == {"id": "c", "metadata": metadata}
    assert stored.asked == [("update", ALICE, "c", metadata)]


@pytest.mark.parametrize(
    ("method", "target", "body", "param"),
    [
        ("GET", f"{PATH}?limit=0", b"", "limit"),
        ("GET", f"{PATH}?order=up", b"", "order"),
        ("GET", f"{PATH}/c/messages?limit=x", b"", "limit"),
        ("POST", f"{PATH}/c", b"{}", "metadata"),
        ("POST", f"{PATH}/c", b'{"metadata":{"a":1}}', "metadata.a"),
    ],
)
async def test_what_is_wrong_is_named(
    port: MemoryPort, stored: Recorder, method: str, target: str, body: bytes, param: str
) -> None:
    reply = await ask(port, method, target, body)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert stored.asked == []
