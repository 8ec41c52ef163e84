"""Stored completions on the wire (contract.md §14): what their queries may say, and what the answers look like.

A query string becomes a `Page` or a `CompletionQuery`, every error naming its `param`; what was not asked for is
ignored, as the API does. Messages are shown as the API's own: `content` is always text or null, the parts that were
sent are under `content_parts`, of which the API shows text and images only.

Source: contract.md §14; OpenAI's OpenAPI description v2.3.0, ChatCompletionList and ChatCompletionMessageList.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from chatport.wire.chat import (
    AssistantMessage,
    ChatCompletion,
    FunctionCall,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolMessage,
)
from chatport.wire.errors import InvalidRequest, quote

DEFAULT_LIMIT = 20
"""Items on a page when the client names no limit (§14)."""

MAX_LIMIT = 100
"""The most items a page may have (§14)."""

MAX_FILTERS = 16
"""Pairs a metadata filter may have: as many as a completion can (§4)."""

MAX_PARAMETERS = 64
"""Parameters a query string may have before it is refused unread."""

Order: TypeAlias = Literal["asc", "desc"]


class Page(Struct, frozen=True, kw_only=True):
    """Which part of a list is wanted: at most `limit` items that follow the one called `after`."""

    after: str | None = None
    limit: int = DEFAULT_LIMIT
    order: Order = "asc"


class CompletionQuery(Page, frozen=True, kw_only=True):
    """Which stored completions are wanted; each given pair of `metadata` must match."""

    model: str | None = None
    metadata: dict[str, str] = {}


class CompletionList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ChatCompletion]
    first_id: str | None
    last_id: str | None
    has_more: bool


class CompletionDeleted(Struct, frozen=True, kw_only=True):
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    id: str
    deleted: Literal[True] = True


class StoredMessage(Struct, frozen=True, kw_only=True):
    """One input message; `content_parts` is null where the content was sent as a string."""

    id: str
    role: str
    content: str | None
    refusal: str | None = None
    name: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    content_parts: list[TextPart | ImagePart] | None = None


class MessageList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[StoredMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool


def completion_list(completions: list[ChatCompletion], *, has_more: bool) -> CompletionList:
    """The page in its envelope; ids are null when it is empty."""
    first, last = (completions[0].id, completions[-1].id) if completions else (None, None)
    return CompletionList(data=completions, first_id=first, last_id=last, has_more=has_more)


def message_list(messages: list[StoredMessage], *, has_more: bool) -> MessageList:
    """The page in its envelope; ids are null when it is empty."""
    first, last = (messages[0].id, messages[-1].id) if messages else (None, None)
    return MessageList(data=messages, first_id=first, last_id=last, has_more=has_more)


def stored_message(id: str, message: Message) -> StoredMessage:  # noqa: A002  the wire's word
    """An input message as the listing shows it."""
    parts = message.content if isinstance(message.content, list) else None
    shown = StoredMessage(
        id=id,
        role=role_of(message),
        content=message.content if isinstance(message.content, str) else text_of(parts),
        name=message.name or UNSET,
        content_parts=None if parts is None else [part for part in parts if isinstance(part, TextPart | ImagePart)],
    )
    return _with_calls(shown, message, parts)


def role_of(message: Message) -> str:
    """The role a message was sent under."""
    return str(message.__struct_config__.tag)


def text_of(parts: Sequence[Part] | None) -> str | None:
    """The text of an array content, joined; None where it has none."""
    texts = [part.text for part in parts or () if isinstance(part, TextPart)]
    return "".join(texts) if texts else None


def _with_calls(shown: StoredMessage, message: Message, parts: Sequence[Part] | None) -> StoredMessage:
    """What only assistant and tool messages have."""
    if isinstance(message, ToolMessage):
        return replace(shown, tool_call_id=message.tool_call_id)
    if isinstance(message, AssistantMessage):
        refusals = [part.refusal for part in parts or () if isinstance(part, RefusalPart)]
        return replace(
            shown,
            refusal=message.refusal or next(iter(refusals), None),
            tool_calls=message.tool_calls or UNSET,
            function_call=message.function_call or UNSET,
        )
    return shown


def decode_page(query: bytes) -> Page:
    """The query string of a list of messages. Raises InvalidRequest with the parameter's name."""
    given = _parameters(query)
    return Page(after=given.get("after") or None, limit=_limit(given.get("limit")), order=_order(given.get("order")))


def decode_completion_query(query: bytes) -> CompletionQuery:
    """The query string of a list of completions. Raises InvalidRequest with the parameter's name."""
    given = _parameters(query)
    return CompletionQuery(
        after=given.get("after") or None,
        limit=_limit(given.get("limit")),
        order=_order(given.get("order")),
        model=given.get("model") or None,
        metadata=_filters(given),
    )


def _parameters(query: bytes) -> dict[str, str]:
    """Names to values, the last of a name winning. Bytes that are no UTF-8 become U+FFFD and match nothing."""
    try:
        pairs = parse_qsl(query.decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as exc:
        raise InvalidRequest(f"Too many query parameters: at most {MAX_PARAMETERS} are allowed.") from exc
    return dict(pairs)


def _limit(given: str | None) -> int:
    if given is None:
        return DEFAULT_LIMIT
    digits = given.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise InvalidRequest(
            f"Invalid type for 'limit': expected an integer from 1 to {MAX_LIMIT}, but got {quote(given)} instead.",
            param="limit",
            code="invalid_type",
        )
    limit = int(given)
    if limit < 1:
        raise InvalidRequest(
            f"Invalid 'limit': integer below minimum value. Expected a value >= 1, but got {limit} instead.",
            param="limit",
            code="integer_below_min_value",
        )
    if limit > MAX_LIMIT:
        raise InvalidRequest(
            f"Invalid 'limit': integer above maximum value. Expected a value <= {MAX_LIMIT}, but got {limit} instead.",
            param="limit",
            code="integer_above_max_value",
        )
    return limit


def _order(given: str | None) -> Order:
    if given is None or given == "asc":
        return "asc"
    if given == "desc":
        return "desc"
    raise InvalidRequest(
        f"Invalid value for 'order': {quote(given)}. Supported values are: 'asc' and 'desc'.",
        param="order",
        code="invalid_value",
    )


def _filters(given: dict[str, str]) -> dict[str, str]:
    """`metadata[key]=value`, each pair."""
    filters = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in given.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    if len(filters) > MAX_FILTERS:
        raise InvalidRequest(
            f"Invalid 'metadata': too many pairs. Expected at most {MAX_FILTERS}, but got {len(filters)} instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    return filters
