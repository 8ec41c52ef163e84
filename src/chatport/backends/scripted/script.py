"""What the scripted model says to a request: no I/O, no clock, the same every time.

It says the pieces of its reply, or echoes the last user text word by word. A piece is a token: limits and usage count
pieces, each has one logprobs item. The rules by which it does what a model would decide:

- A tool or function is called when the caller demands it, or when the last message is the user's and names it
  (`call look_up`); arguments are the smallest that the schema allows. A call costs one token for its name and one
  for each word of its arguments.
- Where JSON is asked for it writes the smallest that the schema allows, unless its reply is a JSON object already.
- Of an image, a sound or a file it echoes the kind, in brackets. Sampling parameters change nothing.

An answer ends with `length` when the limit cut it, or allowed nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct

from chatport.backends.scripted.matching import Unmet, text_matching
from chatport.backends.scripted.smallest import smallest
from chatport.wire.chat import (
    NULL,
    ChatRequest,
    CustomDelta,
    CustomTool,
    Delta,
    FinishReason,
    Function,
    FunctionDelta,
    FunctionTool,
    GrammarFormat,
    Logprobs,
    Message,
    Part,
    RefusalPart,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCallDelta,
    TopLogprob,
    UserMessage,
    text_delta,
)
from chatport.wire.errors import Unsupported
from chatport.wire.tools import Offer, offer_of, tool_name

_WORDS = re.compile(r"\s*\S+|\s+")

_CERTAIN = -0.01
"""Logprob of what was said; alternatives follow at -5, -6, …"""

_ALTERNATIVES = [f" {letter}" for letter in "abcdefghijklmnopqrstu"]
"""One more than `top_logprobs` may ask for."""


class Token(Struct, frozen=True):
    """One token of a choice, as it is streamed."""

    delta: Delta
    logprobs: Logprobs | None = None


class Script(Struct, frozen=True):
    """What every choice of an answer will say. `spent` tokens are counted, those of a matched stop included."""

    tokens: list[Token]
    spent: int
    finish: FinishReason


def write(request: ChatRequest, reply: list[str] | None, limit: int | None) -> Script:
    """What each choice says. `reply` None: the echo; `limit`: tokens, None: all. Raises Unsupported for a strict schema
    or a grammar that nothing was found for."""
    offer = offer_of(request)
    match _called(request, offer):
        case []:
            return _saying(_pieces(request, reply), request, limit)
        case [FunctionTool(function=function), *_] if offer.legacy:
            return _calling(_function_call(function), limit, "function_call")
        case calls:
            deltas = [delta for index, tool in enumerate(calls) for delta in _tool_call(index, tool, request)]
            return _calling(deltas, limit, "stop" if offer.named else "tool_calls")


def prompt_tokens(request: ChatRequest) -> int:
    """One for each message and one for each word in it."""
    return sum(1 + len(_words(message_text(message))) for message in request.messages)


def _pieces(request: ChatRequest, reply: list[str] | None) -> list[str]:
    kind = request.response_format.kind if request.response_format else "text"
    if kind != "text" and not _is_object("".join(reply or ())):
        return _words(_json_answer(request))
    return _words(last_user_text(request)) if reply is None else reply


# --- texts -----------------------------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    """Split so that joining them gives the text again."""
    return _WORDS.findall(text)


def message_text(message: Message) -> str:
    """What a message says; of a part that is no text its kind, in brackets."""
    content = message.content
    if content is None:
        return ""
    return content if isinstance(content, str) else "".join(map(_part_text, content))


def _part_text(part: Part) -> str:
    match part:
        case TextPart(text=text) | RefusalPart(refusal=text):
            return text
    return f"[{part.__struct_config__.tag}]"


def last_user_text(request: ChatRequest) -> str:
    """The last thing the user said, empty when no message is the user's."""
    said = (message_text(message) for message in reversed(request.messages) if isinstance(message, UserMessage))
    return next(said, "")


def _saying(pieces: list[str], request: ChatRequest, limit: int | None) -> Script:
    """Text up to the limit, and up to the stop sequence that is complete first."""
    finish: FinishReason = "stop" if limit is None or 0 < limit >= len(pieces) else "length"
    spent = pieces if limit is None else pieces[:limit]
    text = "".join(spent)
    found = [(at + len(stop), at) for stop in request.stop_sequences if stop and (at := text.find(stop)) >= 0]
    said = spent
    if found:
        end, start = min(found)
        finish, spent, said = "stop", _upto(spent, end), _upto(spent, start)
        said = [*said[:-1], said[-1][: start - sum(map(len, said[:-1]))]] if said else []
    top = request.top_logprobs or 0
    tokens = [Token(text_delta(piece), _logprobs(piece, top) if request.logprobs else None) for piece in said]
    return Script(tokens, len(spent), finish)


def _upto(pieces: list[str], characters: int) -> list[str]:
    """The pieces that it takes for so many characters."""
    upto, length = [], 0
    for piece in pieces:
        if length >= characters:
            break
        upto.append(piece)
        length += len(piece)
    return upto


def _logprobs(piece: str, top: int) -> Logprobs:
    others = [other for other in _ALTERNATIVES if other != piece]
    ranked = [(piece, _CERTAIN), *((other, -5.0 - rank) for rank, other in enumerate(others))][:top]
    item = TokenLogprob(
        token=piece,
        logprob=_CERTAIN,
        bytes=list(piece.encode()),
        top_logprobs=[
            TopLogprob(token=token, logprob=logprob, bytes=list(token.encode())) for token, logprob in ranked
        ],
    )
    return Logprobs(content=[item])


# --- JSON ------------------------------------------------------------------------------------------------------------


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


def _json_answer(request: ChatRequest) -> str:
    schema = request.response_format.json_schema if request.response_format else None
    if schema is None:
        return "{}"
    return _json(schema.schema, strict=bool(schema.strict), param="response_format")


def _json(schema: Raw, *, strict: bool, param: str) -> str:
    """The smallest object that the schema allows, in words; `{}` where none is found and it need not be strict."""
    try:
        value = smallest(msgspec.json.decode(schema))
    except Unmet as exc:
        if strict:
            raise Unsupported(
                f"The scripted model can't write a value for the schema in '{param}'; "
                "patterns with look-around or back references, and very large values, are beyond it.",
                param=param,
                code="unsupported_value",
            ) from exc
        value = {}
    return json.dumps(value if isinstance(value, dict) else {}, ensure_ascii=False)


# --- calls -----------------------------------------------------------------------------------------------------------


def _calling(deltas: Iterable[Delta], limit: int | None, finish: FinishReason) -> Script:
    """Calls up to the limit: one that was cut is returned as far as it went (contract.md §6)."""
    tokens = [Token(delta) for delta in deltas]
    if limit is not None and limit < len(tokens):
        tokens, finish = tokens[:limit], "length"
    return Script(tokens, len(tokens), finish)


def _called(request: ChatRequest, offer: Offer) -> list[Tool]:
    """The tools to call, in the order they are offered; none where the answer is text."""
    mentioned = [tool for tool in offer.tools if _mentions(request, tool_name(tool))]
    calls = mentioned or list(offer.tools[:1] if offer.must_call else ())
    return calls if offer.several else calls[:1]


def _mentions(request: ChatRequest, name: str) -> bool:
    """Whether the last message is the user's and has this name in it as a word of its own."""
    last = request.messages[-1]
    if not isinstance(last, UserMessage):
        return False
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", message_text(last)) is not None


def _tool_call(index: int, tool: Tool, request: ChatRequest) -> list[Delta]:
    """Ids are the normaliser's business."""
    if isinstance(tool, CustomTool):
        head = ToolCallDelta(index=index, type="custom", custom=CustomDelta(name=tool.custom.name, input=""))
        rest = [
            ToolCallDelta(index=index, custom=CustomDelta(input=word)) for word in _words(_custom_input(tool, request))
        ]
    else:
        function = tool.function
        head = ToolCallDelta(index=index, type="function", function=FunctionDelta(name=function.name, arguments=""))
        arguments = _words(_arguments(function, f"tools[{(request.tools or []).index(tool)}].function.parameters"))
        rest = [ToolCallDelta(index=index, function=FunctionDelta(arguments=word)) for word in arguments]
    return [Delta(tool_calls=[piece]) for piece in (head, *rest)]


def _custom_input(tool: CustomTool, request: ChatRequest) -> str:
    """What fits the grammar; without one, what the user said."""
    wanted = tool.custom.format
    if not isinstance(wanted, GrammarFormat):
        return last_user_text(request)
    try:
        if wanted.grammar.syntax == "regex":
            return text_matching(wanted.grammar.definition)
        raise Unmet(wanted.grammar.syntax)
    except Unmet as exc:
        param = f"tools[{(request.tools or []).index(tool)}].custom.format"
        raise Unsupported(
            f"The scripted model can't write to the grammar in '{param}'; it can to regular expressions "
            "without look-around and back references.",
            param=param,
            code="unsupported_value",
        ) from exc


def _function_call(function: Function) -> list[Delta]:
    head = FunctionDelta(name=function.name, arguments="")
    words = _words(_arguments(function, "functions"))
    return [Delta(function_call=piece) for piece in (head, *(FunctionDelta(arguments=word) for word in words))]


def _arguments(function: Function, param: str) -> str:
    if function.parameters == NULL:
        return "{}"
    return _json(function.parameters, strict=bool(function.strict), param=param)
