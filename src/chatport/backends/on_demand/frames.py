"""What the program and a model's own process say to each other, and how it is put into bytes. No I/O.

A frame is its length and a message in JSON: JSON, because a request carries its caller's schemas as the JSON they came
as. Every call has a number. The one who calls says Cancel and Grant about it; the other one answers, and its last word
is exactly one of Opened, Bounded, Completed, Ended, Failed, after which what the call held is free.

A stream may run WINDOW chunks ahead of who reads it: a slow client then holds up its own answer, and neither the other
answers on the same pipe nor the program's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from chatport.backends.llama.backend import LlamaSettings
from chatport.targets import Bound, Target
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest
from chatport.wire.errors import ApiError

LENGTH_BYTES: Final = 4
WINDOW: Final = 64
"""Chunks of one stream that may be under way unread."""
GRANT: Final = WINDOW // 2
"""Chunks that are read before as many more are asked for."""


class Message(Struct, frozen=True, tag=True, array_like=True):
    """One frame."""


# --- To the model's process ------------------------------------------------------------------------------------------


class Open(Message, frozen=True):
    """The first call: load this."""

    call: int
    settings: LlamaSettings


class Bounding(Message, frozen=True):
    """The rest are the calls of `backends/base.Backend`; `request_id` is for the lines logged meanwhile."""

    call: int
    request_id: str
    target: Target
    request: ChatRequest


class Answering(Message, frozen=True):
    call: int
    request_id: str
    target: Target
    request: ChatRequest
    bound: Bound


class Completing(Answering, frozen=True):
    pass


class Streaming(Answering, frozen=True):
    pass


class Grant(Message, frozen=True):
    """So many more chunks may come."""

    call: int
    chunks: int


class Cancel(Message, frozen=True):
    """Nobody wants the rest. The last word is awaited all the same."""

    call: int


Call: TypeAlias = Bounding | Completing | Streaming
ToModel: TypeAlias = Open | Bounding | Completing | Streaming | Grant | Cancel


# --- From it ---------------------------------------------------------------------------------------------------------


class Opened(Message, frozen=True):
    """The model is loaded."""

    call: int


class Bounded(Message, frozen=True):
    call: int
    bound: Bound


class Completed(Message, frozen=True):
    call: int
    completion: ChatCompletion


class Said(Message, frozen=True):
    call: int
    chunk: ChatChunk


class Ended(Message, frozen=True):
    """A stream has ended, or what was cancelled."""

    call: int


class Failed(Message, frozen=True):
    """An ApiError: its class and what it knows."""

    call: int
    kind: str
    told: dict[str, Any]


class Logged(Message, frozen=True):
    """A line for the log."""

    level: int
    text: str
    request_id: str


Reply: TypeAlias = Opened | Bounded | Completed | Said | Ended | Failed
FromModel: TypeAlias = Opened | Bounded | Completed | Said | Ended | Failed | Logged


# --- Bytes -----------------------------------------------------------------------------------------------------------


class Frames:
    """Bytes as they come, the content of each whole frame out; what is not whole yet is kept."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._held += data
        at = 0
        while (start := at + LENGTH_BYTES) <= len(self._held):
            end = start + int.from_bytes(self._held[at:start], "little")
            if end > len(self._held):
                break
            yield bytes(self._held[start:end])
            at = end
        del self._held[:at]


def frame(message: Message) -> bytes:
    content = _encoder.encode(message)
    return len(content).to_bytes(LENGTH_BYTES, "little") + content


def to_model(content: bytes) -> ToModel:
    return _to_model.decode(content)


def from_model(content: bytes) -> FromModel:
    return _from_model.decode(content)


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind} can't be sent")


_encoder = msgspec.json.Encoder(enc_hook=str)
_to_model: msgspec.json.Decoder[ToModel] = msgspec.json.Decoder(ToModel, dec_hook=_path)
_from_model: msgspec.json.Decoder[FromModel] = msgspec.json.Decoder(FromModel)


# --- Errors ----------------------------------------------------------------------------------------------------------


def failed(call: int, error: ApiError) -> Failed:
    """An error on its way."""
    return Failed(call, type(error).__name__, vars(error))


def error_of(failure: Failed) -> ApiError:
    """The error that was sent: of the same class, with everything that it knows."""
    kind = _kinds()[failure.kind]
    error = kind.__new__(kind, failure.told["message"])
    vars(error).update(failure.told)
    return error


def _kinds() -> dict[str, type[ApiError]]:
    found: list[type[ApiError]] = [ApiError]
    for kind in found:
        found += kind.__subclasses__()
    return {kind.__name__: kind for kind in found}
