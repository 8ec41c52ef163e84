"""An upstream's failure, as our client hears it (contract.md §12): status and meaning, and nothing of who it was.

400, 413, 422              400, in the upstream's words, cleaned of addresses, keys and its name for the model
401, 403, 404 …            500: our own key or configuration, never the client's 401
402, 429 out of credit     503: the operator's account, never the client's quota
408, 409, 502, 503, 504 …  503, with the upstream's retry-after
429                        429, with the upstream's retry-after
500, and what is no HTTP   500
no connection, no answer   503
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Struct

from chatport.backends.http.faults import Fault, TimedOut, Unreachable
from chatport.wire.errors import ApiError, InternalError, InvalidRequest, RateLimited, Unavailable, UpstreamFailed

MESSAGE_LIMIT = 1000
"""Characters of an upstream's sentence that are told."""

MAX_ERROR = 64 * 1024
"""Bytes that are read of an error's body."""

OUT_OF_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})

LATE = frozenset({408, 409, 425, 499})
"""Statuses that say: not now."""

TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}tokens|too many tokens|prompt is too long", re.IGNORECASE
)
_HIDDEN = re.compile(
    r"""\bhttps?://\S+                                   # addresses
      | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b
      | \b[\w-]+(?:\.[\w-]+)*\.(?:com|cn|net|org|ai|io|internal|local|xyz)\b(?::\d+)?(?:/\S*)?
      | \b(?:sk|pk|gsk|xai|fw|key|org|proj)[-_][\w*.-]{6,}  # keys and accounts
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CODE = re.compile(r"[a-z0-9_.-]{1,64}\Z")
_PARAM = re.compile(r"[\w.\[\]-]{1,128}\Z")

NOT_NOW = "The model's upstream is not available right now."
TOO_LATE = "The model's upstream did not answer in time."

log = logging.getLogger("chatport")


class ErrorSaid(Struct, frozen=True):
    """What an upstream's error says, wherever it says it."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None


def read_error(body: bytes) -> ErrorSaid:
    """The error in a body: OpenAI's object, the same without its wrapper, FastAPI's list, or a bare sentence."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorSaid()
    inner = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(inner, str):
        return ErrorSaid(message=inner)
    return _error_object(inner) if isinstance(inner, dict) else ErrorSaid()


def _error_object(error: dict[str, Any]) -> ErrorSaid:
    message, param = error.get("message") or error.get("detail") or error.get("msg"), error.get("param")
    if isinstance(message, dict):
        message = message.get("detail") or message.get("message")
    if isinstance(message, list) and message and isinstance(message[0], dict):  # FastAPI: what is wrong where
        place, message = message[0].get("loc"), message[0].get("msg")
        if isinstance(place, list):
            param = ".".join(str(part) for part in place if part != "body")
    code, kind = error.get("code"), error.get("type")
    return ErrorSaid(
        message=message if isinstance(message, str) else "",
        type=kind if isinstance(kind, str) else None,
        param=param if isinstance(param, str) else None,
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
    )


class Asked(Struct, frozen=True):
    """Who was asked for what: what messages may say, and what they must not."""

    target: str
    """Its id, for the log."""
    model: str
    """The upstream's name for the model."""
    name: str
    """The client's name for it."""
    hidden: tuple[str, ...] = ()
    """What is told to nobody: our key, the upstream's host."""


def refusal(status: int, said: ErrorSaid, wait: float | None, asked: Asked) -> ApiError:
    """The error that a status becomes. `wait`: seconds, from retry-after."""
    log.warning("target %s: the upstream answered %d (code %.64r)", asked.target, status, said.code)
    if status in (400, 413, 422):
        return _invalid(said, asked)
    if status == 402 or (status == 429 and {said.code, said.type} & OUT_OF_CREDIT):
        log.error("target %s: the upstream says that our account is exhausted", asked.target)
        return Unavailable(NOT_NOW)
    if status == 429:
        return RateLimited("The model's upstream takes no more requests right now.", retry_after=wait)
    if status == 500:
        return UpstreamFailed()
    if status in LATE or status > 500:
        return Unavailable(TOO_LATE if status in LATE else NOT_NOW, retry_after=wait)
    log.error("target %s: with status %d, its key, address or model must be wrong", asked.target, status)
    return InternalError("The server can't use the upstream of this model as it is configured.")


def _invalid(said: ErrorSaid, asked: Asked) -> ApiError:
    message = cleaned(said.message, asked) or "The model's upstream refused the request as invalid."
    param = said.param if said.param and _PARAM.match(said.param) else None
    code = said.code if said.code and _CODE.match(said.code) and not said.code.isdigit() else None
    if code == "context_length_exceeded" or (code is None and TOO_LONG.search(message)):
        param, code = "messages", "context_length_exceeded"
    return InvalidRequest(message, param=param, code=code)


def cleaned(message: str, asked: Asked) -> str:
    """An upstream's sentence without addresses, keys, and its own name for the model."""
    text = "".join(character if character.isprintable() else " " for character in message[: 4 * MESSAGE_LIMIT])
    for secret in filter(None, asked.hidden):
        text = text.replace(secret, "[…]")
    text = _HIDDEN.sub("[…]", text.replace(asked.model, asked.name) if len(asked.model) > 2 else text)
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def failure_in_answer(body: bytes, asked: Asked) -> ApiError:
    """An error that came with status 200, or behind the head of a stream; some say a status in it."""
    said = read_error(body)
    status = int(said.code) if said.code is not None and said.code.isdigit() and len(said.code) == 3 else 500
    if said.code == "context_length_exceeded" or said.type == "invalid_request_error":
        status = 400
    return refusal(max(status, 400), said, None, asked)


def fault(exc: Fault, target: str) -> ApiError:
    """What a fault of the connection becomes; its own words, which name hosts, are for the log."""
    log.warning("target %s: %s", target, exc)
    if isinstance(exc, Unreachable):
        return Unavailable("The model's upstream can't be reached right now.")
    if isinstance(exc, TimedOut):
        return Unavailable(TOO_LATE)
    return UpstreamFailed("The model's upstream broke off before its answer was complete.")


def retry_after(header: Callable[[bytes], bytes | None], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that the upstream asks to wait: `retry-after-ms`, or `retry-after` as seconds or a date; None: unsaid."""
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        given = header(name)
        if given is None:
            continue
        try:
            seconds = float(given) / unit
        except ValueError:
            seconds = _until(given.decode("latin-1"), now())
        if 0 <= seconds < 86_400 * 365:
            return seconds
    return None


def _until(date: str, now: float) -> float:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return -1.0
