"""HTTP as a chat needs it: one request at a time, whose reply may be left at any moment.

`urllib.request` is enough for that, and comes with Python: it knows proxies, `NO_PROXY` and TLS, blocks where Ctrl-C
can interrupt it, and closes the connection with the reply, which is how a server learns that nobody listens any
more. The official SDK or httpx would be heavy to depend on for two endpoints.
"""

from __future__ import annotations

from http.client import HTTPException, HTTPResponse
from typing import IO, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import msgspec
from msgspec import Struct

from chatport import __version__
from chatport.cli.chat.errors import KeyRefused, NoServer, RequestRefused
from chatport.cli.proxies import is_loopback

CONNECT_SECONDS = 10.0
"""Seconds to wait for a server to take a connection and answer a small request."""

SILENCE_SECONDS = 600.0
"""Seconds without a byte after which an answer is given up. Precedent: the official SDKs' timeout."""

MAX_ERROR = 64 * 1024
"""Bytes of an error reply that are looked at."""

MAX_REPLY = 64 * 1024 * 1024
"""Bytes that a whole reply may have."""


class ErrorObject(Struct):
    """The part of an error that is for people; other servers leave out the rest."""

    message: str


class ErrorBody(Struct):
    """An error as servers of this API send it. Some send only its text."""

    error: ErrorObject | str


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: following it would carry the key to another address."""

    def redirect_request(  # noqa: PLR0913, PLR0917  urllib's signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str
    ) -> Request | None:
        return None


class Transport:
    """Requests below one URL, which has no slash at its end. `direct`: never through a proxy; loopback never is."""

    def __init__(self, url: str, *, direct: bool = False) -> None:
        self.url = url
        proxies = ProxyHandler({}) if direct or is_loopback(urlsplit(url).hostname or "") else ProxyHandler()
        self._opener = build_opener(_NoRedirects, proxies)

    def get(self, path: str, key: str | None) -> bytes:
        """A small reply, whole. Raises what `open` does."""
        with self.open(path, key, timeout=CONNECT_SECONDS) as response:
            return self.read(response)

    def open(
        self, path: str, key: str | None, body: bytes | None = None, *, timeout: float = SILENCE_SECONDS
    ) -> HTTPResponse:
        """The reply, its head read, to be closed by the caller; a POST where there is a body, which must be JSON.

        `timeout`: seconds without a byte. Raises NoServer, KeyRefused, RequestRefused.
        """
        headers = {"accept": "application/json, text/event-stream", "user-agent": f"chatport/{__version__}"}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            request = Request(self.url + path, data=body, headers=headers)  # noqa: S310  the scheme was checked
            return cast("HTTPResponse", self._opener.open(request, timeout=timeout))
        except HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, HTTPException, UnicodeError) as error:  # UnicodeError: a host that can't be one
            raise NoServer(f"No answer from {self.url}: {_reason(error)}.") from None

    def read(self, response: HTTPResponse) -> bytes:
        """The whole body. Raises NoServer for one that is too long or was cut."""
        try:
            body = response.read(MAX_REPLY + 1)
        except (OSError, HTTPException) as error:
            raise NoServer(f"The reply of {self.url} was cut: {_reason(error)}.") from None
        if len(body) > MAX_REPLY:
            raise NoServer(f"The reply of {self.url} has more than {MAX_REPLY} bytes.")
        return body

    def _refusal(self, error: HTTPError) -> KeyRefused | RequestRefused:
        try:
            told = error_message(error.read(MAX_ERROR))
        except (OSError, HTTPException):
            told = None
        sentence = told or f"{self.url} answers with HTTP status {error.code}."
        return KeyRefused(sentence) if error.code == 401 else RequestRefused(error.code, sentence)


def error_message(body: bytes) -> str | None:
    """What an error object says; None where this is none."""
    try:
        error = msgspec.json.decode(body, type=ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return error if isinstance(error, str) else error.message


def _reason(error: OSError | HTTPException | UnicodeError) -> str:
    """Why nobody answers, in a few words."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return "it took too long"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
