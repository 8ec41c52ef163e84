"""What a server is asked, and what it says: the list of models, and an answer as it comes.

Read with structs of our own: those of `wire/` demand all that we send ourselves, and other servers leave much out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from http.client import HTTPException, HTTPResponse

import msgspec
from msgspec import Struct

from chatport.cli.chat.access import Access
from chatport.cli.chat.errors import AnswerBroken, KeyRefused, NoServer, RequestRefused, UnknownModel
from chatport.cli.chat.transport import Transport, error_message
from chatport.wire.chat import ChatRequest
from chatport.wire.errors import InternalError
from chatport.wire.sse import SSEDecoder

PIECE = 64 * 1024
"""Bytes read at once, at most."""

END_OF_STREAM = b"[DONE]"


class Said(Struct):
    """A piece of an answer, or a whole one. Reasoning has two names in the wild."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(Struct):
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None


class Counted(Struct):
    """Tokens, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Event(Struct):
    """One frame of a stream, or a whole reply."""

    choices: list[Choice] = []
    usage: Counted | None = None

    @property
    def said(self) -> Iterator[Said]:
        return (said for choice in self.choices if (said := choice.delta or choice.message) is not None)

    @property
    def text(self) -> str:
        return "".join((said.content or "") + (said.refusal or "") for said in self.said)

    @property
    def reasoning(self) -> str:
        return "".join(said.reasoning_content or said.reasoning or "" for said in self.said)

    @property
    def finish_reason(self) -> str | None:
        return next((choice.finish_reason for choice in self.choices if choice.finish_reason), None)


class Listed(Struct):
    id: str


class Listing(Struct):
    data: list[Listed]


class Server:
    """A server of the API, and the key that opens it."""

    def __init__(self, transport: Transport, access: Access) -> None:
        self._transport = transport
        self._access = access
        self.known: list[str] = []
        """The models that it listed when it was last asked."""

    @property
    def url(self) -> str:
        """The API's base URL."""
        return self._transport.url

    def models(self) -> list[str]:
        """Every name that can be asked for. Raises ChatError."""
        body = self._asked("/models")
        try:
            self.known = [model.id for model in msgspec.json.decode(body, type=Listing).data]
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise NoServer(f"What answers at {self.url} does not speak the Chat Completions API.") from None
        return self.known

    def model(self, wanted: str | None) -> str:
        """The model of that name, or the first one. Raises UnknownModel with those there are, and as `models`."""
        try:
            known = self.models()
        except RequestRefused as error:
            # Some servers list nothing. They will say themselves whether they know the model.
            if wanted is not None and error.status in {404, 405}:
                return wanted
            raise
        if wanted in known:
            return wanted
        if not known:
            raise UnknownModel(f"{self.url} lists no models.")
        if wanted is None:
            return known[0]
        raise UnknownModel(f"There is no model {wanted!r} at {self.url}. It has: {', '.join(known)}.")

    def answer(self, request: ChatRequest) -> Generator[Event, None, None]:
        """What comes of a request, as it comes. Closing the iterator ends the connection. Raises ChatError."""
        with self._opened("/chat/completions", msgspec.json.encode(request)) as response:
            if response.headers.get_content_type() == "text/event-stream":
                yield from self._streamed(response)
            else:
                yield _event(self._transport.read(response))

    def _asked(self, path: str) -> bytes:
        with self._opened(path) as response:
            return self._transport.read(response)

    def _opened(self, path: str, body: bytes | None = None) -> HTTPResponse:
        try:
            return self._transport.open(path, self._access.key(), body)
        except KeyRefused as error:
            raise KeyRefused(f"{self.url} does not take the key: {error} {self._access.origin}") from None

    def _streamed(self, response: HTTPResponse) -> Iterator[Event]:
        finished = False
        for data in self._frames(response):
            if data == END_OF_STREAM:
                return
            event = _event(data)
            finished = finished or event.finish_reason is not None
            yield event
        if not finished:  # not every server says [DONE]
            raise AnswerBroken("The connection ended before the answer did.")

    def _frames(self, response: HTTPResponse) -> Iterator[bytes]:
        decoder = SSEDecoder()
        try:
            while piece := response.read1(PIECE):
                yield from decoder.feed(piece)
        except TimeoutError:
            raise AnswerBroken("The server has said nothing for too long.") from None
        except (OSError, HTTPException):
            raise AnswerBroken("The connection broke before the answer ended.") from None
        except InternalError as error:
            raise AnswerBroken(str(error)) from None


def _event(data: bytes) -> Event:
    """Raises AnswerBroken for an error, and for what is no part of an answer."""
    if (told := error_message(data)) is not None:
        raise AnswerBroken(told)
    try:
        return msgspec.json.decode(data, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AnswerBroken("The server sent something that is no part of an answer.") from None
