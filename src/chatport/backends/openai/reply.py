"""What upstreams say, read as leniently as can be done without inventing, and told in the house's own words.

OpenAI's fields and the habits of those who came after: nulls where something is required, ids and indexes left out,
`reasoning` for `reasoning_content`, arguments as an object, a usage inside of a choice. A message of a whole reply and
a delta of a stream have the same fields, so both are `Said`.

What `wire/stream.py` repairs is left alone here: roles, order, ids of calls, repeated heads.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, json

from chatport.backends.openai.counting import estimated
from chatport.ids import fresh
from chatport.targets import Bound
from chatport.wire.chat import (
    NULL,
    AudioDelta,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    CompletionTokensDetails,
    CustomCall,
    CustomDelta,
    CustomToolCall,
    Delta,
    FinishReason,
    FunctionCall,
    FunctionDelta,
    FunctionToolCall,
    Logprobs,
    PromptTokensDetails,
    ResponseMessage,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from chatport.wire.errors import UpstreamFailed
from chatport.wire.tally import Tally

NO_ANSWER = "The model's upstream sent something that is no answer."
FEWER_CHOICES = "The model's upstream made fewer choices than were asked for."


class SaidPart(Struct, frozen=True, gc=False):
    """A part of a content that is an array, as some send it."""

    type: str | None = None
    text: str | None = None
    thinking: str | list[SaidPart] | None = None
    """Mistral's place for what was thought."""


class SaidFunction(Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class SaidCustom(Struct, frozen=True, gc=False):
    name: str | None = None
    input: str | None = None


class SaidCall(Struct, frozen=True, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: SaidFunction | None = None
    custom: SaidCustom | None = None


class Said(Struct, frozen=True, gc=False):
    """A message, or a piece of one."""

    content: str | list[SaidPart] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[SaidCall] | None = None
    function_call: SaidFunction | None = None
    annotations: Raw = NULL
    audio: Raw = NULL

    def only_content(self) -> bool:
        """Whether it is content and nothing else: nearly always."""
        return (
            self.reasoning_content is None
            and self.reasoning is None
            and self.tool_calls is None
            and self.function_call is None
            and self.refusal is None
            and self.annotations is NULL
            and self.audio is NULL
        )


class SaidAudio(Struct, frozen=True, gc=False):
    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: int | None = None


class SaidTop(Struct, frozen=True, gc=False):
    token: str
    logprob: float
    bytes: list[int] | None = None


class SaidToken(Struct, frozen=True, gc=False):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[SaidTop] | None = None


class SaidLogprobs(Struct, frozen=True, gc=False):
    content: list[SaidToken] | None = None
    refusal: list[SaidToken] | None = None


class SaidPromptDetails(Struct, frozen=True, gc=False):
    cached_tokens: int | None = None
    audio_tokens: int | None = None
    text_tokens: int | None = None
    image_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None
    """LiteLLM's name for it."""
    cache_creation_input_tokens: int | None = None
    """DashScope's."""


class SaidCompletionDetails(Struct, frozen=True, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    text_tokens: int | None = None


class SaidUsage(Struct, frozen=True, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: SaidPromptDetails | None = None
    completion_tokens_details: SaidCompletionDetails | None = None
    cached_tokens: int | None = None
    """Moonshot's place for it."""
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's."""
    cache_read_input_tokens: int | None = None
    """Of those who speak Anthropic's API too, as the next."""
    cache_creation_input_tokens: int | None = None


class SaidChoice(Struct, frozen=True, gc=False):
    index: int | None = None
    delta: Said | None = None
    message: Said | None = None
    logprobs: SaidLogprobs | None = None
    finish_reason: str | None = None
    usage: SaidUsage | None = None
    """Moonshot's place in a stream."""


class SaidStatus(Struct, frozen=True, gc=False):
    status_code: int | None = None


class Piece(Struct, frozen=True, gc=False):
    """One chunk of a stream, or a whole reply."""

    choices: list[SaidChoice] | None = None
    usage: SaidUsage | None = None
    service_tier: str | None = None
    error: Raw = NULL
    """What went wrong, with status 200, or in the middle of a stream."""
    base_resp: SaidStatus | None = None
    """MiniMax's way to say the same."""

    def failed(self) -> bool:
        """Whether this is an error in the clothes of an answer."""
        if self.error is not NULL and bytes(self.error) not in (b"null", b"false", b'""', b"{}"):
            return True
        return self.base_resp is not None and bool(self.base_resp.status_code)


_decode_piece = json.Decoder(Piece).decode
_decode_audio = json.Decoder(SaidAudio | None).decode
_decode_list = json.Decoder(list[Raw] | None).decode
_decode_object = json.Decoder(dict[str, Any]).decode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SILENCE = SaidAudio()
_NOTHING_SAID = Said()


def read_piece(data: bytes) -> Piece:
    """One chunk, or a whole reply. Raises UpstreamFailed for what is none."""
    try:
        return _decode_piece(data)
    except _BROKEN as exc:
        raise UpstreamFailed(NO_ANSWER) from exc


# --- A stream's chunk ------------------------------------------------------------------------------------------------


def chunk_of(piece: Piece) -> ChatChunk:
    """The piece as a chunk of ours; its envelope is left empty, that is the normaliser's business."""
    said, usage = piece.choices or (), piece.usage
    if len(said) == 1:
        choices = [_chunk_choice(said[0])]
        usage = usage or said[0].usage
    else:
        choices = [_chunk_choice(choice) for choice in said]
    return ChatChunk(
        id="",
        created=0,
        model="",
        choices=choices,
        system_fingerprint="",
        usage=usage_of(usage) if usage is not None else None,
    )


def _chunk_choice(choice: SaidChoice) -> ChunkChoice:
    said = choice.delta or choice.message
    return ChunkChoice(
        index=choice.index or 0,
        delta=_delta(said) if said is not None else _NOTHING,
        logprobs=_logprobs(choice.logprobs) if choice.logprobs is not None else None,
        finish_reason=finish_reason(choice.finish_reason) if choice.finish_reason else None,
    )


_NOTHING = Delta()


def _delta(said: Said) -> Delta:
    content = said.content
    if content and type(content) is str and said.only_content():
        return TextDelta(content=content)
    return Delta(
        content=_text(content),
        refusal=said.refusal,
        reasoning_content=_reasoning(said) or UNSET,
        tool_calls=[_call_delta(at, call) for at, call in enumerate(said.tool_calls)] if said.tool_calls else UNSET,
        function_call=_function_delta(said.function_call) if said.function_call else UNSET,
        audio=_audio_delta(said.audio) if said.audio is not NULL else UNSET,
        annotations=_annotations(said.annotations) or UNSET,
    )


def _text(content: str | list[SaidPart] | None) -> str | None:
    """Parts that are text joined; those that think aloud are `_reasoning`'s."""
    if content is None or isinstance(content, str):
        return content
    return "".join(part.text or "" for part in content if part.type in (None, "text"))


def _reasoning(said: Said) -> str | None:
    if said.reasoning_content is not None:
        return said.reasoning_content
    if isinstance(said.reasoning, str):
        return said.reasoning
    if isinstance(said.content, list):
        thoughts = (part.thinking for part in said.content)
        return "".join(each if isinstance(each, str) else _text(each) or "" for each in thoughts) or None
    return None


def _audio_delta(given: Raw) -> AudioDelta | UnsetType:
    """Unset for what is none, or says nothing."""
    try:
        said = _decode_audio(given)
    except _BROKEN:
        return UNSET
    if said is None or said == _SILENCE:
        return UNSET
    return AudioDelta(
        id=said.id or UNSET,
        data=said.data or UNSET,
        transcript=said.transcript or UNSET,
        expires_at=said.expires_at or UNSET,
    )


def _annotations(given: Raw) -> list[Raw]:
    """Those that are objects."""
    if given is NULL:
        return []
    try:
        items = _decode_list(given) or []
    except _BROKEN:
        return []
    return [written for item in items if (written := _object(item)) is not None]


def _object(given: Raw) -> Raw | None:
    """The same, written anew; None for anything but an object. msgspec does not look into a Raw: line feeds, and bytes
    that are no text, would go out as they came."""
    try:
        return Raw(json.encode(_decode_object(given)))
    except _BROKEN:
        return None


def _call_delta(at: int, call: SaidCall) -> ToolCallDelta:
    index = at if call.index is None else call.index
    if call.custom is not None:
        custom = CustomDelta(name=call.custom.name or UNSET, input=call.custom.input or UNSET)
        return ToolCallDelta(index=index, id=call.id or UNSET, type="custom", custom=custom)
    function = _function_delta(call.function) if call.function is not None else UNSET
    return ToolCallDelta(index=index, id=call.id or UNSET, type="function", function=function)


def _function_delta(function: SaidFunction) -> FunctionDelta:
    return FunctionDelta(name=function.name or UNSET, arguments=_arguments(function.arguments) or UNSET)


def _arguments(given: str | dict[str, Any] | None) -> str:
    return given if isinstance(given, str) else "" if given is None else json.encode(given).decode()


FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "function_call",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "sensitive": "content_filter",
}
"""What upstreams call the end of an answer, in the contract's words."""


def finish_reason(given: str) -> FinishReason:
    """Raises UpstreamFailed for an end that is no end: `error`, `insufficient_system_resource`, `network_error`…"""
    reason = FINISH_REASONS.get(given)
    if reason is None:
        raise UpstreamFailed("The model's upstream broke its answer off.")
    return reason


def _logprobs(said: SaidLogprobs) -> Logprobs:
    return Logprobs(content=_tokens(said.content), refusal=_tokens(said.refusal))


def _tokens(said: list[SaidToken] | None) -> list[TokenLogprob] | None:
    if said is None:
        return None
    return [
        TokenLogprob(
            token=one.token,
            logprob=min(0.0, one.logprob),
            bytes=one.bytes,
            top_logprobs=[
                TopLogprob(token=top.token, logprob=min(0.0, top.logprob), bytes=top.bytes)
                for top in one.top_logprobs or ()
            ],
        )
        for one in said
    ]


# --- A whole reply ---------------------------------------------------------------------------------------------------


def completion_of(piece: Piece, choices: int, bound: Bound) -> ChatCompletion:
    """The reply as a completion of ours, under an empty envelope; its usage is estimated where none is said.

    Raises UpstreamFailed where choices are missing or not told apart.
    """
    said = piece.choices or []
    if len(said) < choices:
        raise UpstreamFailed(FEWER_CHOICES if said else NO_ANSWER)
    if len(said) == 1:
        answers = [_choice(0, said[0])]
    else:
        answers = [_choice(index, choice) for index, choice in enumerate(_ordered(said)[:choices])]
    return ChatCompletion(
        id="",
        created=0,
        model="",
        choices=answers,
        usage=(usage_of(piece.usage) if piece.usage is not None else None) or _estimated(piece, bound),
        system_fingerprint="",
        service_tier=piece.service_tier or "default",
    )


def _estimated(piece: Piece, bound: Bound) -> Usage:
    tally = Tally()
    tally.add(chunk_of(piece))
    return estimated(tally, bound)


def _ordered(said: list[SaidChoice]) -> list[SaidChoice]:
    """By index where each has its own; otherwise as they came."""
    indexes = [choice.index for choice in said if choice.index is not None]
    if len({*indexes}) < len(said):
        return said
    return sorted(said, key=lambda choice: choice.index or 0)


def _choice(index: int, choice: SaidChoice) -> Choice:
    said = choice.message or choice.delta or _NOTHING_SAID
    message = _message(said)
    reason = finish_reason(choice.finish_reason or ("tool_calls" if said.tool_calls else "stop"))
    logprobs = _logprobs(choice.logprobs) if choice.logprobs is not None else None
    return Choice(index=index, message=message, logprobs=logprobs, finish_reason=reason)


def _message(said: Said) -> ResponseMessage:
    content = said.content
    if type(content) is str and said.only_content():
        return ResponseMessage(content=content)
    content = _text(content) or ""
    audio = None if said.audio is NULL else _object(said.audio)
    instead = said.tool_calls or said.function_call or said.refusal or audio
    return ResponseMessage(
        content=(content or None) if instead else content,
        refusal=said.refusal or None,
        reasoning_content=_reasoning(said) or UNSET,
        annotations=_annotations(said.annotations),
        tool_calls=[_call(call) for call in said.tool_calls] if said.tool_calls else UNSET,
        function_call=_function_call(said.function_call) if said.function_call else UNSET,
        audio=UNSET if audio is None else audio,
    )


def _call(call: SaidCall) -> ToolCall:
    identity = call.id or fresh("call_")
    if call.custom is not None:
        return CustomToolCall(
            id=identity, custom=CustomCall(name=_named(call.custom.name), input=call.custom.input or "")
        )
    return FunctionToolCall(id=identity, function=_function_call(call.function or SaidFunction()))


def _function_call(function: SaidFunction) -> FunctionCall:
    return FunctionCall(name=_named(function.name), arguments=_arguments(function.arguments))


def _named(name: str | None) -> str:
    if not name:
        raise UpstreamFailed("The model called a tool without naming it.")
    return name


# --- Usage -----------------------------------------------------------------------------------------------------------

MOST_TOKENS = 1 << 31
"""Of one answer. Nobody makes so many: a count above it is none, and the account could not hold its price."""


def usage_of(said: SaidUsage) -> Usage | None:
    """The counts; None where the upstream only pretends to say them. The total is ours, so that it is one, and no part
    is more than the whole: cached tokens are cheaper, and what is less than nothing would be a grant."""
    prompt, completion = said.prompt_tokens, said.completion_tokens or 0
    if prompt is None or not 0 <= prompt <= MOST_TOKENS or not 0 <= completion <= MOST_TOKENS:
        return None
    made = said.completion_tokens_details or _NOTHING_MADE
    thought = made.reasoning_tokens or 0
    if 0 < thought <= MOST_TOKENS and said.total_tokens == prompt + completion + thought:
        completion += thought  # xAI counts what was thought beside what was said
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=_prompt_details(said, prompt),
        completion_tokens_details=_completion_details(made, completion),
    )


_NOTHING_READ = SaidPromptDetails()
_NOTHING_MADE = SaidCompletionDetails()
_NO_PROMPT_DETAILS = PromptTokensDetails()
_NO_COMPLETION_DETAILS = CompletionTokensDetails()


def _prompt_details(said: SaidUsage, prompt: int) -> PromptTokensDetails:
    read = said.prompt_tokens_details or _NOTHING_READ
    cached = read.cached_tokens or said.cached_tokens or said.prompt_cache_hit_tokens or said.cache_read_input_tokens
    written = _written(said, read)
    if read is _NOTHING_READ and written is None and not cached:
        return _NO_PROMPT_DETAILS
    return PromptTokensDetails(
        cached_tokens=_part(cached, prompt),
        audio_tokens=_part(read.audio_tokens, prompt),
        text_tokens=_part_said(read.text_tokens, prompt),
        image_tokens=_part_said(read.image_tokens, prompt),
        cache_write_tokens=_part_said(written, prompt),
    )


def _written(said: SaidUsage, read: SaidPromptDetails) -> int | None:
    """What was written to the cache; None where nobody speaks of it. Of several places, some may be left at 0."""
    if read is _NOTHING_READ:
        return said.cache_creation_input_tokens
    counts = (
        read.cache_write_tokens,
        read.cache_creation_tokens,
        read.cache_creation_input_tokens,
        said.cache_creation_input_tokens,
    )
    return None if counts == (None, None, None, None) else max(count for count in counts if count is not None)


def _completion_details(made: SaidCompletionDetails, completion: int) -> CompletionTokensDetails:
    if made is _NOTHING_MADE:
        return _NO_COMPLETION_DETAILS
    return CompletionTokensDetails(
        reasoning_tokens=_part(made.reasoning_tokens, completion),
        audio_tokens=_part(made.audio_tokens, completion),
        accepted_prediction_tokens=_part(made.accepted_prediction_tokens, completion),
        rejected_prediction_tokens=_part(made.rejected_prediction_tokens, completion),
        text_tokens=_part_said(made.text_tokens, completion),
    )


def _part(said: int | None, whole: int) -> int:
    return min(max(said, 0), whole) if said else 0


def _part_said(said: int | None, whole: int) -> int | UnsetType:
    """A part that is left out where it is not said."""
    return UNSET if said is None else _part(said, whole)
