"""Bytes to a validated request: the one way into the house.

Two paths (design.md, decision 2). The hot one is a single strict, typed decode and the rules between fields. When it
refuses, the cold one decodes again to plain values and looks for the first fault, to say which field, what was given
and what is allowed; a body too rich for that is told in msgspec's own finding. Whatever the bytes are, the outcome is
a request or one of two errors, BadJSON or InvalidRequest.

What msgspec does that must be known here:
- what it skips or keeps raw it checks as JSON, escapes included, but not as UTF-8, so UTF-8 is checked first;
- a lone surrogate may be called "Input data was truncated";
- a number beyond Python's range is a ValidationError without a place, and nesting beyond the stack a RecursionError.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from typing import NoReturn, TypeVar

import msgspec
from msgspec import structs

from chatport.wire.chat import ChatRequest, GivenRequest, MetadataUpdate
from chatport.wire.errors import BadJSON, InvalidRequest
from chatport.wire.fields import GIVEN, no_object, retell, validate
from chatport.wire.rules import DEFAULT_LIMITS, DecodeLimits, check_request

__all__ = ["DEFAULT_LIMITS", "DecodeLimits", "as_given", "as_known", "decode_metadata", "decode_request"]

T = TypeVar("T")

_REQUEST = msgspec.json.Decoder(ChatRequest)
_GIVEN = msgspec.json.Decoder(GivenRequest)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_METADATA = msgspec.json.Decoder(MetadataUpdate)
_PLAIN = msgspec.json.Decoder()


def decode_request(body: bytes, limits: DecodeLimits = DEFAULT_LIMITS, *, keep_unknown: bool = False) -> ChatRequest:
    """The body of POST /v1/chat/completions, valid in itself (contract.md §4-§8); no model is asked.

    `keep_unknown`: a body with fields that the contract does not know is a GivenRequest instead of a fault.
    Raises BadJSON when the body is not one JSON object in UTF-8, InvalidRequest for the first fault in it.
    """
    request = (_with_unknown(body) if keep_unknown else None) or _decode(body, _REQUEST)
    check_request(request, limits)
    return request


def as_given(request: ChatRequest, body: bytes) -> GivenRequest:
    """The request with the fields of its body, which was decoded before, as they were given."""
    if type(request) is GivenRequest:
        return request
    return GivenRequest(**structs.asdict(request), given=_FIELDS.decode(body))


def as_known(request: GivenRequest) -> ChatRequest:
    """The request without what the contract does not know."""
    return ChatRequest(**{name: getattr(request, name) for name in ChatRequest.__struct_fields__})


def _with_unknown(body: bytes) -> GivenRequest | None:
    """The request of a body whose only fault is that it has unknown fields; None for every other body."""
    try:
        _REQUEST.decode(body)
    except msgspec.ValidationError as exc:
        if "unknown field" not in str(exc):
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    else:
        return None
    try:
        body.decode()
        return structs.replace(_GIVEN.decode(body), given=_FIELDS.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_metadata(body: bytes) -> dict[str, str] | None:
    """The body of POST /v1/chat/completions/{id}: the new metadata, None to clear. Raises like decode_request."""
    return _decode(body, _METADATA).metadata


def _decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except UnicodeDecodeError as exc:
        raise BadJSON(f"The request body is not valid UTF-8: {exc.reason} at byte {exc.start}.") from None
    except (msgspec.DecodeError, RecursionError) as exc:
        _explain(body, decoder.type, exc)


# --- The cold path ---------------------------------------------------------------------------------------------------


MAX_MARKS = 50_000
"""Commas, brackets and backslashes of a body that is walked, each of which may be an object to make and look at. One
that walks to its end takes about 0.1 s, on the loop that serves everybody; beyond, the first finding must do."""


def _explain(body: bytes, expected: type, refusal: Exception) -> NoReturn:
    if sum(map(body.count, (b",", b"[", b"{", b"\\"))) > MAX_MARKS:
        raise _retold(body, expected, refusal)
    value = _plain(body)
    if not isinstance(value, dict):
        raise no_object(GIVEN[type(value)])
    validate(expected, value)
    # Both paths read the same description, so what is left is what a plain object can't show: a key given twice.
    _, _, place = str(refusal).rstrip("`").partition("`$.")
    text = f"The request contradicts itself at '{place or 'its top level'}', perhaps by a key that is given twice."
    raise InvalidRequest(text, param=place or None, code="invalid_value")


def _retold(body: bytes, expected: type, refusal: Exception) -> InvalidRequest:
    """The refusal in our words, without another look at what is in the body."""
    if isinstance(refusal, msgspec.ValidationError):
        return retell(expected, str(refusal))
    if isinstance(refusal, RecursionError):
        return BadJSON(TOO_DEEP)
    return _not_json(body, refusal, "the JSON ends before it is complete, or near half a surrogate pair")


TOO_DEEP = "The request body is nested too deeply."


def _plain(body: bytes) -> object:
    """The body as plain values. Raises BadJSON."""
    if not body.strip():
        raise BadJSON("The request body is empty. Expected a JSON object.")
    if body.startswith(codecs.BOM_UTF8):
        raise BadJSON("The request body starts with a byte order mark, which JSON does not allow.")
    try:
        return _PLAIN.decode(body)
    except msgspec.ValidationError:
        return _wide(body)
    except msgspec.DecodeError as exc:
        _refuse_lone_surrogate(body)
        raise _not_json(body, exc) from None
    except RecursionError:
        raise BadJSON(TOO_DEEP) from None


ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""One escape of a JSON string: a pair of surrogates, half a pair, or any other."""


def _refuse_lone_surrogate(body: bytes) -> None:
    lone = next((escape for escape in ESCAPE.finditer(body) if escape["lone"]), None)
    if lone:
        half = f"{lone[0].decode()} at byte {lone.start()}"
        raise BadJSON(f"The request body holds {half}: half of a surrogate pair, which is no character.")


def _not_json(body: bytes, exc: Exception, truncated: str = "the JSON ends before it is complete") -> BadJSON:
    found = re.search(r"(?:malformed: )?(?P<reason>[^:]+) \(byte (?P<byte>\d+)\)", str(exc))
    if found is None:
        return _unparsable(truncated)
    before = body[: int(found["byte"])]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    hint = " NaN and Infinity are not JSON." if body[len(before) :].startswith((b"N", b"I")) else ""
    return _unparsable(f"{found['reason']} at line {line}, column {column}", hint)


def _unparsable(reason: str, hint: str = "") -> BadJSON:
    return BadJSON(f"We could not parse the JSON body of your request: {reason}.{hint}")


# --- Numbers wider than Python's own ---------------------------------------------------------------------------------

WIDE_DIGITS = 400
"""Digits kept of an integer: more than the widest double has (309), fewer than `int` refuses (4,300)."""


def _wide(body: bytes) -> object:
    """As `_plain`, for a body with a number too wide for msgspec: it becomes one that is just as far out of range."""
    _refuse_lone_surrogate(body)
    try:
        return json.loads(body, parse_int=_clamped_int, parse_float=_clamped_float, parse_constant=_refuse_constant)
    except ValueError:
        raise _unparsable("it is not JSON, and holds a number that is too large besides") from None
    except RecursionError:
        raise BadJSON(TOO_DEEP) from None


def _clamped_int(text: str) -> int:
    return int(text[:WIDE_DIGITS])


def _clamped_float(text: str) -> float:
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
