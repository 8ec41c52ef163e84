"""What is sent upstream: what the client gave, `model` and a few edits apart.

`edits` says which top-level fields change, by value; None leaves a field out. They are applied to the typed request,
or, where a target wants unknown fields forwarded, to the fields as the client wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw, json, structs

from chatport.providers import Quirk
from chatport.wire.chat import ChatRequest, GivenRequest, ResponseFormat, StreamOptions

WITH_USAGE = StreamOptions(include_usage=True)

_encode = json.Encoder().encode
_fields = json.Decoder(dict[str, Raw]).decode


def upstream_body(
    request: ChatRequest, model: str, quirks: frozenset[Quirk], extra_body: Mapping[str, Any] | None = None
) -> bytes:
    """The JSON for one upstream. `extra_body`: fields that win over the client's."""
    changed = edits(request, model, quirks)
    if type(request) is GivenRequest:  # where `isinstance` says no, it costs ten times as much
        fields: dict[str, Any] = {**request.given, "model": model, **changed}
        return _encode({name: value for name, value in {**fields, **(extra_body or {})}.items() if value is not None})
    body = _encode(structs.replace(request, **changed) if changed else request)
    return _encode({**_fields(body), **extra_body}) if extra_body else body


def edits(request: ChatRequest, model: str, quirks: frozenset[Quirk]) -> dict[str, Any]:
    """The fields that an upstream gets otherwise than they were given."""
    changed: dict[str, Any] = {} if request.model == model else {"model": model}
    if request.stream:  # for our own count; obfuscation is done here, too
        changed["stream"] = True
        changed["stream_options"] = None if Quirk.NO_STREAM_OPTIONS in quirks else WITH_USAGE
    if request.store is not None:
        changed["store"] = None
    if request.metadata is not None:
        changed["metadata"] = None
    if request.max_completion_tokens is not None:
        changed |= _limits(request, quirks)
    if request.stop == []:
        changed["stop"] = None
    if request.response_format is not None and request.response_format.type is None:
        changed["response_format"] = _named_format(request.response_format)
    if request.tools is None:  # allowed here, refused elsewhere (contract.md §8)
        if request.tool_choice is not None:
            changed["tool_choice"] = None
        if request.parallel_tool_calls is not None:
            changed["parallel_tool_calls"] = None
    return changed


def _limits(request: ChatRequest, quirks: frozenset[Quirk]) -> dict[str, int | None]:
    """One limit, in the spelling that the upstream knows: of two, the smaller wins."""
    if Quirk.OLD_MAX_TOKENS in quirks:
        return {"max_tokens": request.output_limit, "max_completion_tokens": None}
    return {"max_tokens": None, "max_completion_tokens": request.output_limit}


def _named_format(given: ResponseFormat) -> ResponseFormat | None:
    """`{}` means text, which is the default, and a schema alone json_schema (contract.md §1, row 10)."""
    return None if given.kind == "text" else structs.replace(given, type=given.kind)
