"""Clients of a server that comes and goes: plain ones, streams, some that leave, some that repeat themselves.

Each notes what it had of its answer, so that the account can be compared with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
from msgspec import json

from support.counted import WORDS
from support.lives import NewKey

CREATE = "/v1/chat/completions"
PATIENCE = 20.0
"""Seconds for any answer: nothing that a test does takes as long."""


@dataclass
class Had:
    """What one client had of one answer."""

    request_id: str
    key: NewKey
    status: int
    words: int = 0
    whole: bool = False
    replayed: bool = False
    clamped: bool = False
    finish: str | None = None
    code: str | None = None
    message: str = ""
    headers: httpx2.Headers = field(default_factory=httpx2.Headers)


@dataclass
class Kept:
    """An answer that an Idempotency-Key must bring back."""

    key: NewKey
    name: str
    body: dict[str, Any]
    reply: bytes | None = None
    """None: it was not had in whole yet."""
    asked: bool = False
    """Somebody asks for it now: two at a time would be a conflict."""


@dataclass
class Crowd:
    """Everything that they do follows from the seed; when, from the machine."""

    http: httpx2.AsyncClient
    keys: list[NewKey]
    models: list[str]
    rng: random.Random
    had: list[Had] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    slowest: float = 0.0

    async def ask(
        self, key: NewKey, *, leave_after: int | None = None, idempotent: Kept | None = None, **fields: Any
    ) -> Had | None:
        """One request; None where no reply came. `leave_after`: words of a stream after which the client goes."""
        body = idempotent.body if idempotent else request(**fields)
        headers = key.headers | ({"idempotency-key": idempotent.name} if idempotent else {})
        had: Had | None = None
        reply = b""
        began = asyncio.get_running_loop().time()
        try:
            async with self.http.stream("POST", CREATE, json=body, headers=headers) as response:
                told = response.headers
                had = Had(told["x-request-id"], key, response.status_code, headers=told)
                had.replayed = "x-chatport-replayed" in told
                had.clamped = "x-chatport-clamped" in told
                self.had.append(had)
                async for piece in response.aiter_raw():
                    reply += piece
                    had.words = _words(reply, stream=bool(body.get("stream")))
                    if leave_after is not None and had.words >= leave_after:
                        return had
                _read(had, reply, stream=bool(body.get("stream")))
        except httpx2.TransportError:
            return had
        finally:
            self.slowest = max(self.slowest, asyncio.get_running_loop().time() - began)
        if idempotent is not None and had.whole:
            self._compare(idempotent, had, reply)
        return had

    def _compare(self, kept: Kept, had: Had, reply: bytes) -> None:
        """The first whole reply is the one that comes back, in whichever life of the server."""
        if kept.reply is None:
            kept.reply = reply
        else:
            assert had.replayed, f"{had.request_id} was answered anew"
            assert reply == kept.reply

    async def one(self) -> None:
        """Somebody asks for something."""
        rng = self.rng
        key = rng.choice(self.keys)
        fields: dict[str, Any] = {
            "model": rng.choice(self.models),
            "seed": rng.randrange(1, WORDS),
            "stream": rng.random() < 0.5,
        }
        if rng.random() < 0.3:
            fields["max_completion_tokens"] = rng.randrange(1, WORDS)
        kind = rng.random()
        if kind < 0.2:
            with suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.0, 0.1)):
                    await self.ask(key, leave_after=rng.randrange(1, WORDS), **fields)
        elif kind < 0.4:
            await self._again(key, fields)
        else:
            await self.ask(key, **fields)

    async def _again(self, key: NewKey, fields: dict[str, Any]) -> None:
        """Asks for something that was asked for before, or for something that will be."""
        old = [kept for kept in self.kept if not kept.asked]
        if old and self.rng.random() < 0.6:
            kept = self.rng.choice(old)
        else:
            kept = Kept(key, f"again-{len(self.kept)}", request(**fields))
            self.kept.append(kept)
        kept.asked = True
        try:
            await self.ask(kept.key, idempotent=kept)
        finally:
            kept.asked = False

    async def many(self, clients: int, until: Callable[[], bool]) -> None:
        """So many of them at a time, until that is so."""

        async def client() -> None:
            while not until():
                await self.one()

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())


@asynccontextmanager
async def crowd(url: str, keys: list[NewKey], models: list[str], rng: random.Random) -> AsyncIterator[Crowd]:
    """Clients of the server there."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE, limits=limits, verify=False) as http:
        yield Crowd(http, keys, models, rng)


def request(**fields: Any) -> dict[str, Any]:
    """A small one."""
    return {"messages": [{"role": "user", "content": "Count."}], **fields}


def _words(reply: bytes, *, stream: bool) -> int:
    """How many are in as much of a reply as is there."""
    return reply.count(b'"content":"') - reply.count(b'"content":""') if stream else 0


def _read(had: Had, reply: bytes, *, stream: bool) -> None:
    """The end of a reply that ended as HTTP wants it."""
    if had.status != 200:
        error = json.decode(reply)["error"]
        had.code, had.message = error["code"], error["message"]
    elif stream:
        frames = [line.removeprefix(b"data: ") for line in reply.split(b"\n\n") if line.startswith(b"data: ")]
        last = frames[-1] if frames else b""
        had.whole = last == b"[DONE]"
        if last.startswith(b'{"error"'):
            had.code = json.decode(last)["error"]["code"] or "error"
        ends = [frame for frame in frames if b'"finish_reason":"' in frame]
        had.finish = json.decode(ends[0])["choices"][0]["finish_reason"] if ends else None
    else:
        [choice] = json.decode(reply)["choices"]
        had.words = len(choice["message"]["content"]) // 4
        had.finish = choice["finish_reason"]
        had.whole = True
