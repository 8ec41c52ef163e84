"""The grammar of a streamed answer: what a backend says goes in, what a client may see comes out (contract.md §10).

Each choice of an answer walks through `NEXT`, one table that every backend is held to:

    NEW ──role──> OPEN ──content, refusal, audio, call──> ANSWER ──finish──> DONE
                  reasoning: OPEN                (more of them): ANSWER     (an empty answer: OPEN ──finish──> DONE)

Annotations, which are about an answer and no part of it, may stand anywhere before the finish and change no state.

What can be repaired is repaired: a role that is missing, repeated or late; a finish that comes with content; several
choices or several kinds of text in one chunk; tool calls with gaps in their indexes, without id or type, or with their
head repeated. What has no place is dropped: deltas that say nothing, reasoning after the answer has begun, anything
after a choice's finish (the client has been told that it is complete). What would mean inventing is refused with
InternalError: a choice that never ends, an index nobody asked for, a call without a name, an answer without its usage.

The role chunk is held back until it is known what follows, since its content is `""` before text and null before
anything else. A choice that only reasoned gets an empty text before its finish, so that its joined deltas are the reply
of a request that does not stream: there, content is null only where calls, audio or a refusal stand in its place.

Rules of the file: no I/O, no clock, and a text chunk of a running answer costs two constructions and no copy.
"""

from __future__ import annotations

import binascii
import random
import string
from base64 import b64decode, b64encode
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import suppress
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from chatport.ids import fresh
from chatport.wire.chat import (
    AudioDelta,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    CustomCall,
    CustomDelta,
    CustomToolCall,
    Delta,
    FinishReason,
    FunctionCall,
    FunctionDelta,
    FunctionToolCall,
    Logprobs,
    ResponseMessage,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from chatport.wire.errors import InternalError


class State(IntEnum):
    """Where a choice is."""

    NEW = 0
    OPEN = 1
    ANSWER = 2
    DONE = 3


class Kind(StrEnum):
    """What a piece of a choice says."""

    ROLE = "role"
    REASONING = "reasoning_content"
    CONTENT = "content"
    REFUSAL = "refusal"
    AUDIO = "audio"
    TOOL_CALL = "tool_calls"
    FUNCTION_CALL = "function_call"
    ANNOTATIONS = "annotations"
    FINISH = "finish_reason"


_ANSWER: Final = {
    Kind.CONTENT: State.ANSWER,
    Kind.REFUSAL: State.ANSWER,
    Kind.AUDIO: State.ANSWER,
    Kind.TOOL_CALL: State.ANSWER,
    Kind.FUNCTION_CALL: State.ANSWER,
    Kind.FINISH: State.DONE,
}

NEXT: Final[dict[State, dict[Kind, State]]] = {
    State.NEW: {Kind.ROLE: State.OPEN},
    State.OPEN: {Kind.REASONING: State.OPEN, Kind.ANNOTATIONS: State.OPEN, **_ANSWER},
    State.ANSWER: {Kind.ANNOTATIONS: State.ANSWER, **_ANSWER},
    State.DONE: {},  # usage and [DONE] belong to the answer, not to a choice
}

_ANSWERING: Final = State.ANSWER  # by its own name: that of a member costs as much as the rest of a look at a chunk
_END_OF_DELTA: Final = Delta()
_NO_FUNCTION: Final = FunctionDelta()
_PADDING: Final = string.ascii_letters + string.digits

CUT_SHORT = "The model's answer ended before it was complete."
NO_USAGE = "The model did not say what its answer used."

FRAME_STEP = 32
"""Bytes. With `include_obfuscation` the size of every chunk is a multiple of this, so that watching the sizes of
encrypted frames does not tell the lengths of the words in them."""


class Envelope(Struct, frozen=True):
    """What is the same in all chunks of an answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: str = "default"


class StreamNormaliser:
    """Holds an answer to the grammar: `push` what the backend says, send what comes back, `finish` when it has ended.

    `usage` is what the backend said last; it may be set before `finish` where the backend was silent.
    """

    def __init__(
        self, envelope: Envelope, choices: int, *, include_usage: bool, include_obfuscation: bool = False
    ) -> None:
        self.usage: Usage | None = None
        self._envelope = envelope
        self._choices = {index: _ChoiceGrammar(index) for index in range(choices)}
        self._include_usage = include_usage
        self._obfuscate = include_obfuscation
        self._chunk_usage: UnsetType | None = None if include_usage else UNSET

    @property
    def ended(self) -> bool:
        """Whether every choice has come to its end: nothing but the usage follows."""
        return all(choice.state is State.DONE for choice in self._choices.values())

    def push(self, chunk: ChatChunk) -> list[ChatChunk]:
        """What the client gets for this chunk: often one, none while there is nothing to say."""
        if chunk.usage:
            self.usage = chunk.usage
        told: list[ChatChunk] = []
        for choice in chunk.choices:
            grammar = self._choices.get(choice.index)
            if grammar is None:
                raise self._unasked(choice.index)
            if type(choice.delta) is TextDelta and grammar.state is _ANSWERING and choice.finish_reason is None:
                # More of a running answer goes out as it is.
                told.append(self._chunk([choice], self._chunk_usage))
            else:
                told += [self._chunk([said], self._chunk_usage) for said in grammar.push(choice)]
        return told

    def finish(self) -> list[ChatChunk]:
        """The end of the answer. Raises InternalError when a choice never ended, or the usage was never said."""
        for choice in self._choices.values():
            if choice.state is not State.DONE:
                raise InternalError(CUT_SHORT)
        if not self._include_usage:
            return []
        if self.usage is None:
            raise InternalError(NO_USAGE)
        return [self._chunk([], self.usage)]

    def cut(self, usage: Usage) -> list[ChatChunk]:
        """The end of an answer that stops here: choices that have not ended do so now, for want of length."""
        self.usage = usage
        return [
            self._chunk([said], self._chunk_usage)
            for choice in self._choices.values()
            if choice.state is not State.DONE
            for said in choice.push(ChunkChoice(index=choice.index, delta=_END_OF_DELTA, finish_reason="length"))
        ]

    def _unasked(self, index: int) -> InternalError:
        return InternalError(f"The model answered with a choice {index}; {len(self._choices)} were asked for.")

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | UnsetType | None) -> ChatChunk:
        same = self._envelope
        chunk = ChatChunk(
            id=same.id,
            created=same.created,
            model=same.model,
            choices=choices,
            system_fingerprint=same.system_fingerprint,
            service_tier=same.service_tier,
            usage=usage,
        )
        return _obfuscated(chunk) if self._obfuscate else chunk


def _obfuscated(chunk: ChatChunk) -> ChatChunk:
    """The chunk padded to the next multiple of `FRAME_STEP`; the padding is never empty."""
    bare = len(msgspec.json.encode(msgspec.structs.replace(chunk, obfuscation="")))
    padding = "".join(random.choices(_PADDING, k=FRAME_STEP - bare % FRAME_STEP))  # noqa: S311 (filler, no secret)
    return msgspec.structs.replace(chunk, obfuscation=padding)


class _ChoiceGrammar:
    """One choice on its way through `NEXT`."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.state = State.NEW
        self._calls: list[_Call] = []
        self._begun = 0  # of them: those that the client knows
        self._call_at: dict[int, _Call] = {}  # by the backend's index, which may have gaps or repeat
        self._call_ids: set[str] = set()
        self._function_call: _Call | None = None

    def push(self, choice: ChunkChoice) -> Iterator[ChunkChoice]:
        """What the client is told, in the order of the grammar."""
        if self.state is State.DONE:
            return
        delta, logprobs = choice.delta, choice.logprobs
        if delta.reasoning_content:
            yield from self._say(Kind.REASONING, Delta(reasoning_content=delta.reasoning_content))
        for kind, piece in self._answer(delta, logprobs):
            # They travel with the first piece of their delta, but never with annotations: those are no text.
            yield from self._say(kind, piece, None if kind is Kind.ANNOTATIONS else logprobs)
            logprobs = None
        if choice.finish_reason is not None:
            yield from self._end(choice.finish_reason)

    def _say(self, kind: Kind, delta: Delta, logprobs: Logprobs | None = None) -> Iterator[ChunkChoice]:
        if self.state is State.NEW:
            yield self._role(kind)
        following = NEXT[self.state].get(kind)
        if following is not None:
            self.state = following
            yield ChunkChoice(index=self.index, delta=delta, logprobs=logprobs)

    def _role(self, first: Kind) -> ChunkChoice:
        self.state = NEXT[self.state][Kind.ROLE]
        content = "" if first in (Kind.CONTENT, Kind.FINISH) else None
        return ChunkChoice(index=self.index, delta=Delta(role="assistant", content=content))

    def _end(self, reason: FinishReason) -> Iterator[ChunkChoice]:
        calls = [*self._calls, self._function_call] if self._function_call else self._calls
        if any(not call.name for call in calls):
            raise InternalError("The model called a tool without naming it.")
        if self.state is State.NEW:
            yield self._role(Kind.FINISH)
        elif self.state is State.OPEN:  # it has only reasoned, or told its sources
            yield from self._say(Kind.CONTENT, Delta(content=""))
        self.state = NEXT[self.state][Kind.FINISH]
        yield ChunkChoice(index=self.index, delta=_END_OF_DELTA, finish_reason=reason)

    def _answer(self, delta: Delta, logprobs: Logprobs | None) -> Iterator[tuple[Kind, Delta]]:
        """The delta taken apart; what says nothing is left out, unless logprobs have no other piece to travel with."""
        if delta.content or (logprobs is not None and _carries_text_of(delta, logprobs)):
            yield Kind.CONTENT, Delta(content=delta.content or "")
        if delta.refusal:
            yield Kind.REFUSAL, Delta(refusal=delta.refusal)
        if delta.audio:
            yield Kind.AUDIO, Delta(audio=delta.audio)
        for piece in delta.tool_calls or ():
            name, text = _name_and_text(piece)
            if name or text or piece.id:
                call = self._call(piece, name)
                if name and not call.name:  # its head goes out now: clients count calls in the order of their heads
                    call.index = self._begun
                    self._begun += 1
                for said in call.push(name, text):
                    yield Kind.TOOL_CALL, said
        name, text = _name_and_arguments(delta.function_call or _NO_FUNCTION)
        if name or text:
            for said in self._legacy_call().push(name, text):
                yield Kind.FUNCTION_CALL, said
        if delta.annotations:
            yield Kind.ANNOTATIONS, Delta(annotations=delta.annotations)

    def _call(self, piece: ToolCallDelta, name: str) -> _Call:
        """The call that this piece belongs to. Some upstreams give every call the index 0: a new id with a new name
        begins a new one all the same."""
        call = self._call_at.get(piece.index)
        if call is not None and not (call.name and name and piece.id and piece.id != call.given_id):
            return call
        form: _Form = "custom" if piece.type == "custom" or piece.custom else "function"
        self._call_at[piece.index] = call = _Call(form, piece.id or "")
        if not call.id or call.id in self._call_ids:
            call.id = fresh("call_")
        self._call_ids.add(call.id)
        self._calls.append(call)
        return call

    def _legacy_call(self) -> _Call:
        if self._function_call is None:
            self._function_call = _Call("function_call", "")
        return self._function_call


def _carries_text_of(delta: Delta, logprobs: Logprobs) -> bool:
    """Whether these logprobs need a piece of content made for them: a token inside a character has no text yet."""
    if delta.refusal or delta.audio or delta.tool_calls or delta.function_call:
        return False
    return bool(logprobs.content or logprobs.refusal)


def _name_and_text(piece: ToolCallDelta) -> tuple[str, str]:
    if piece.custom:
        return piece.custom.name or "", piece.custom.input or ""
    return _name_and_arguments(piece.function or _NO_FUNCTION)


def _name_and_arguments(function: FunctionDelta) -> tuple[str, str]:
    return function.name or "", function.arguments or ""


_Form = Literal["function", "custom", "function_call"]


class _Call:
    """One call as far as it was made: its head goes out once, when its name is known, and its text after that."""

    __slots__ = ("_form", "_held", "given_id", "id", "index", "name")

    def __init__(self, form: _Form, given_id: str) -> None:
        self.index = 0
        self.given_id = given_id
        self.id = given_id
        self.name = ""
        self._form = form
        self._held = ""

    def push(self, name: str, text: str) -> Iterator[Delta]:
        if not self.name:
            text = self._held + text
            if not name:
                self._held = text
                return
            self.name, self._held = name, ""
            yield self._head()
        if text:
            yield self._more(text)

    def _head(self) -> Delta:
        if self._form == "function_call":
            return Delta(function_call=FunctionDelta(name=self.name, arguments=""))
        if self._form == "custom":
            custom = CustomDelta(name=self.name, input="")
            return Delta(tool_calls=[ToolCallDelta(index=self.index, id=self.id, type="custom", custom=custom)])
        function = FunctionDelta(name=self.name, arguments="")
        return Delta(tool_calls=[ToolCallDelta(index=self.index, id=self.id, type="function", function=function)])

    def _more(self, text: str) -> Delta:
        if self._form == "function_call":
            return Delta(function_call=FunctionDelta(arguments=text))
        if self._form == "custom":
            return Delta(tool_calls=[ToolCallDelta(index=self.index, custom=CustomDelta(input=text))])
        return Delta(tool_calls=[ToolCallDelta(index=self.index, function=FunctionDelta(arguments=text))])


class Aggregator:
    """Joins normalised chunks to the reply of a request that does not stream."""

    def __init__(self) -> None:
        self._first: ChatChunk | None = None
        self._choices: dict[int, _JoinedChoice] = {}

    def push(self, chunk: ChatChunk) -> None:
        """Takes what a normaliser gave."""
        if self._first is None:
            self._first = chunk
        for choice in chunk.choices:
            joined = self._choices.get(choice.index)
            if joined is None:
                joined = self._choices[choice.index] = _JoinedChoice()
            joined.push(choice)

    def result(self, usage: Usage | None) -> ChatCompletion:
        """The whole answer. Raises InternalError when there was none, a choice never ended, or the usage is unknown."""
        same = self._first
        if same is None:
            raise InternalError("The model gave no answer.")
        if usage is None:
            raise InternalError(NO_USAGE)
        return ChatCompletion(
            id=same.id,
            created=same.created,
            model=same.model,
            choices=[choice.result(index) for index, choice in sorted(self._choices.items())],
            usage=usage,
            system_fingerprint=same.system_fingerprint,
            service_tier=same.service_tier or "default",
        )


class _JoinedChoice:
    """One choice, its pieces kept apart until the end so that joining them is linear."""

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._audio: list[AudioDelta] = []
        self._annotations: list[Raw] = []
        self._logprobs: list[Logprobs] = []
        self._calls: dict[int, list[ToolCallDelta]] = {}
        self._function_call: list[FunctionDelta] = []
        self._finish: FinishReason | None = None

    def push(self, choice: ChunkChoice) -> None:
        delta = choice.delta
        if isinstance(delta.content, str):
            self._content.append(delta.content)
        if delta.reasoning_content:
            self._reasoning.append(delta.reasoning_content)
        if delta.refusal:
            self._refusal.append(delta.refusal)
        if delta.audio:
            self._audio.append(delta.audio)
        if delta.annotations:
            self._annotations += delta.annotations
        for call in delta.tool_calls or ():
            self._calls.setdefault(call.index, []).append(call)
        if delta.function_call:
            self._function_call.append(delta.function_call)
        if choice.logprobs is not None:
            self._logprobs.append(choice.logprobs)
        self._finish = choice.finish_reason or self._finish

    def result(self, index: int) -> Choice:
        if self._finish is None:
            raise InternalError(CUT_SHORT)
        logprobs = _joined_logprobs(self._logprobs) if self._logprobs else None
        return Choice(index=index, message=self._message(), logprobs=logprobs, finish_reason=self._finish)

    def _message(self) -> ResponseMessage:
        return ResponseMessage(
            content="".join(self._content) if self._content else None,
            refusal="".join(self._refusal) or None,
            reasoning_content="".join(self._reasoning) or UNSET,
            tool_calls=[_joined_call(pieces) for _, pieces in sorted(self._calls.items())] or UNSET,
            function_call=_joined_function(self._function_call) if self._function_call else UNSET,
            audio=_joined_audio(self._audio) if self._audio else UNSET,
            annotations=self._annotations,
        )


def _joined_logprobs(pieces: list[Logprobs]) -> Logprobs:
    return Logprobs(
        content=_joined_items(piece.content for piece in pieces),
        refusal=_joined_items(piece.refusal for piece in pieces),
    )


def _joined_items(pieces: Iterable[list[TokenLogprob] | None]) -> list[TokenLogprob] | None:
    said = [items for items in pieces if items is not None]
    return list(chain.from_iterable(said)) if said else None


def _joined_call(pieces: list[ToolCallDelta]) -> ToolCall:
    head = pieces[0]
    name = _name_and_text(head)[0]
    text = "".join(_name_and_text(piece)[1] for piece in pieces)
    if head.type == "custom":
        return CustomToolCall(id=head.id or "", custom=CustomCall(name=name, input=text))
    return FunctionToolCall(id=head.id or "", function=FunctionCall(name=name, arguments=text))


def _joined_function(pieces: list[FunctionDelta]) -> FunctionCall:
    return FunctionCall(name=pieces[0].name or "", arguments="".join(piece.arguments or "" for piece in pieces))


def _joined_audio(pieces: list[AudioDelta]) -> Raw:
    """The whole of what was spoken; its id is the first that was said, its end the last."""
    whole = AudioDelta(
        id=next((piece.id for piece in pieces if piece.id), UNSET),
        data=_joined_base64([piece.data for piece in pieces if piece.data]),
        transcript="".join(piece.transcript or "" for piece in pieces),
        expires_at=next((piece.expires_at for piece in reversed(pieces) if piece.expires_at), UNSET),
    )
    return Raw(msgspec.json.encode(whole))


def _joined_base64(pieces: list[str]) -> str:
    """One text, also where each piece is one of its own with padding at its end."""
    text = "".join(pieces)
    if "=" in text.rstrip("="):
        with suppress(binascii.Error, ValueError):
            return b64encode(b"".join(b64decode(piece) for piece in pieces)).decode()
    return text


async def collect(envelope: Envelope, choices: int, chunks: AsyncIterable[ChatChunk]) -> ChatCompletion:
    """The whole answer of a backend that can only stream. Raises InternalError where `StreamNormaliser` and
    `Aggregator` do."""
    normaliser, answer = StreamNormaliser(envelope, choices, include_usage=False), Aggregator()
    async for chunk in chunks:
        for said in normaliser.push(chunk):
            answer.push(said)
    normaliser.finish()
    return answer.result(normaliser.usage)
