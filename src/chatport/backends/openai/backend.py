"""The backend for every API that speaks Chat Completions: one instance for each target."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, json, structs

from chatport import __version__
from chatport.backends.http.connection import Connection, Timeouts
from chatport.backends.http.dial import Origin
from chatport.backends.http.faults import Fault
from chatport.backends.http.pool import Pool
from chatport.backends.openai.counting import bound_of
from chatport.backends.openai.pouring import UpstreamChunks
from chatport.backends.openai.reading import ReadLimits, StreamReader, read
from chatport.backends.openai.refusals import (
    MAX_ERROR,
    Asked,
    ErrorSaid,
    fault,
    read_error,
    refusal,
    retry_after,
)
from chatport.backends.openai.reply import NO_ANSWER, completion_of
from chatport.backends.openai.request import upstream_body
from chatport.providers import Quirk
from chatport.targets import Bound, Target
from chatport.telemetry import REQUEST_ID
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest
from chatport.wire.errors import ApiError, Unavailable, UpstreamFailed

PROBE_TIMEOUTS = Timeouts(connect=5.0, send=5.0, first_byte=10.0, between=10.0, total=15.0)


class OpenAISettings(Struct, frozen=True, kw_only=True):
    """One upstream. Its key is in no representation."""

    base_url: str
    """Up to and without `/chat/completions`."""
    api_key: str | None = None
    headers: Mapping[str, str] = {}
    body: Mapping[str, Any] = {}
    """Fields of the request that win over the client's."""
    quirks: frozenset[Quirk] = frozenset()
    timeouts: Timeouts = Timeouts()
    limits: ReadLimits = ReadLimits()

    def __repr__(self) -> str:
        return f"OpenAISettings({self.base_url!r})"


class ListedModel(Struct, frozen=True):
    id: str


class ModelListing(Struct, frozen=True):
    data: list[ListedModel]


class OpenAIBackend:
    """Asks one upstream through a pool of connections, which others may share. Raises only ApiErrors."""

    def __init__(self, settings: OpenAISettings, pool: Pool) -> None:
        self._settings = settings
        self._pool = pool
        path = urlsplit(settings.base_url).path.rstrip("/")
        self._create = request_lines("POST", f"{path}/chat/completions", settings, pool.origin)
        self._list = request_lines("GET", f"{path}/models", settings, pool.origin)
        self._hidden = (settings.api_key or "", pool.origin.host, *settings.headers.values())
        self._closed = False
        self.in_flight = 0
        """Requests that are being answered now."""

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        """By bytes: no tokenizer of the upstream's is here."""
        return bound_of(request)

    async def complete(self, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
        """The whole answer, asked for as a whole."""
        self.in_flight += 1
        try:
            answer = await self._ask(target, request)
            try:
                if answer.status != 200:
                    raise await self._refusal(answer, target, request)
                data = await answer.body(self._settings.limits.reply)
            finally:
                self._pool.give_back(answer)
        except Fault as exc:
            raise fault(exc, target.id) from exc
        finally:
            self.in_flight -= 1
        return completion_of(read(data, self._asked(target, request.model)), request.choices, bound)

    @asynccontextmanager
    async def stream(
        self, target: Target, request: ChatRequest, bound: Bound
    ) -> AsyncIterator[AsyncIterator[ChatChunk]]:
        """The answer as it comes, also where the client wants it as a whole. Leaving the context early closes the
        connection, which tells the upstream."""
        if not request.stream:
            request = structs.replace(request, stream=True)
        self.in_flight += 1
        try:
            answer = await self._ask(target, request)
            try:
                if answer.status != 200:
                    raise await self._refusal(answer, target, request)
                yield UpstreamChunks(answer, self._reader(answer, target, request, bound), target.id)
            finally:
                self._pool.give_back(answer)
        except Fault as exc:
            raise fault(exc, target.id) from exc
        finally:
            self.in_flight -= 1

    async def models(self, target: Target) -> list[str]:
        """What the upstream lists under /models."""
        try:
            answer = await self._exchange(self._list, b"", PROBE_TIMEOUTS)
            try:
                if answer.status != 200:
                    raise refusal(answer.status, read_error(b""), None, self._asked(target, target.model))
                data = await answer.body(self._settings.limits.reply)
            finally:
                self._pool.give_back(answer)
        except Fault as exc:
            raise fault(exc, target.id) from exc
        try:
            return [model.id for model in json.decode(data, type=ModelListing).data]
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UpstreamFailed(NO_ANSWER) from exc

    async def probe(self, target: Target) -> None:
        """Asks for the list of models, which costs nothing."""
        await self.models(target)

    async def close(self) -> None:
        """Nothing more is asked. The pool, which others may share, is closed by its owner."""
        self._closed = True

    # --- Asking ------------------------------------------------------------------------------------------------------

    def _ask(self, target: Target, request: ChatRequest) -> Coroutine[Any, Any, Connection]:
        settings = self._settings
        body = upstream_body(request, target.model, settings.quirks, settings.body)
        return self._exchange(self._create, body, settings.timeouts)

    def _exchange(self, lines: bytes, body: bytes, timeouts: Timeouts) -> Coroutine[Any, Any, Connection]:
        if self._closed:
            raise Unavailable("The model is shut down.")
        told = f"x-request-id: {REQUEST_ID.get()}\r\ncontent-length: {len(body)}\r\n\r\n"
        return self._pool.ask(b"".join((lines, told.encode(), body)), timeouts)

    def _asked(self, target: Target, name: str) -> Asked:
        return Asked(target.id, target.model, name, self._hidden)

    def _reader(self, answer: Connection, target: Target, request: ChatRequest, bound: Bound) -> StreamReader:
        whole = (answer.header(b"content-type") or b"").lower().startswith(b"application/json")
        asked = self._asked(target, request.model)
        return StreamReader(asked, request.choices, bound, self._settings.limits, whole=whole)

    async def _refusal(self, answer: Connection, target: Target, request: ChatRequest) -> ApiError:
        """What any status but 200 becomes."""
        wait = retry_after(answer.header)
        try:
            said = read_error(await answer.body(MAX_ERROR))
        except Fault:  # the status alone says enough
            said = ErrorSaid()
        return refusal(answer.status, said, wait, self._asked(target, request.model))


def request_lines(method: str, path: str, settings: OpenAISettings, origin: Origin) -> bytes:
    """The part of a request's head that is always the same. Raises ValueError for a header that would end its line."""
    headers = {
        "host": origin.authority,
        "user-agent": f"chatport/{__version__}",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
    }
    if method == "POST":
        headers["content-type"] = "application/json"
    if settings.api_key is not None:
        headers["authorization"] = f"Bearer {settings.api_key}"
    if origin.reader is not None and origin.reader.authorization is not None:
        headers["proxy-authorization"] = origin.reader.authorization.decode()
    headers |= {name.lower(): value for name, value in settings.headers.items()}
    lines = [f"{method} {origin.target(path)} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any(not line.isprintable() for line in lines):
        raise ValueError("a header of the upstream's requests holds a control character")
    return ("\r\n".join(lines) + "\r\n").encode()
