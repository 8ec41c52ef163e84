"""Messages to bytes and back, wherever the bytes are cut; errors arrive as what they were."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chatport.backends.llama import LlamaSettings
from chatport.backends.on_demand.frames import (
    Bounded,
    Bounding,
    Cancel,
    Completed,
    Ended,
    Frames,
    FromModel,
    Grant,
    Logged,
    Message,
    Open,
    Opened,
    Said,
    Streaming,
    ToModel,
    error_of,
    failed,
    frame,
    from_model,
    to_model,
)
from chatport.targets import Bound, Feature, Target
from chatport.wire.chat import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Logprobs,
    ResponseMessage,
    TokenLogprob,
    Usage,
)
from chatport.wire.errors import (
    ApiError,
    BadJSON,
    ContextExceeded,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RateLimited,
    Unavailable,
    Unsupported,
)

TARGET = Target(id="t", backend="b", model="m", features=frozenset({Feature.LOGPROBS}), context=512)
BOUND = Bound(prompt_tokens=3, output_tokens=None, counted_by="exact", clamped=7, prompt=(1, 2, 3))
REQUEST = msgspec.json.decode(
    msgspec.json.encode(
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "\x00 🦙 \u2028"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "3"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": [1e300]}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "logit_bias": {"7": -100},
            "seed": -(2**63),
            "stop": ["a", "b"],
        }
    ),
    type=ChatRequest,
)
CHUNK = ChatChunk(
    id="",
    created=0,
    model="m",
    choices=[
        ChunkChoice(
            index=1,
            delta=Delta(content="é"),
            logprobs=Logprobs(content=[TokenLogprob(token="é", logprob=-0.5, bytes=[195, 169])]),
            finish_reason="stop",
        )
    ],
    system_fingerprint="fp",
)
COMPLETION = ChatCompletion(
    id="",
    created=0,
    model="m",
    choices=[Choice(index=0, message=ResponseMessage(content="hi"), finish_reason="length")],
    usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
    system_fingerprint="fp",
)

SENT: list[ToModel] = [
    Open(0, LlamaSettings(path=Path("/a/b c.gguf"), slots=2, gpu_layers=3, system_prompt="Be kind.")),
    Bounding(1, "req_1", TARGET, REQUEST),
    Streaming(2, "", TARGET, REQUEST, BOUND),
    Grant(2, 32),
    Cancel(2),
]
SAID: list[FromModel] = [
    Opened(0),
    Bounded(1, BOUND),
    Said(2, CHUNK),
    Completed(3, COMPLETION),
    Ended(2),
    Logged(40, "a line\nand another", "req_1"),
]
ERRORS: list[ApiError] = [
    InvalidRequest("no", param="messages[0]", code="invalid_value"),
    BadJSON("no"),
    Unsupported("no", param="tools"),
    ContextExceeded(512, 600),
    MethodNotAllowed("PUT", "GET"),
    RateLimited("no", retry_after=2.5),
    InternalError(),
    Unavailable("no", retry_after=0.1),
    Unavailable("no"),
]


def framed(messages: list[ToModel] | list[FromModel]) -> bytes:
    return b"".join(map(frame, messages))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1 << 20])
def test_pieces_of_any_size_come_to_the_same(size: int) -> None:
    for messages, decode in ((SENT, to_model), (SAID, from_model)):
        whole, frames = framed(messages), Frames()
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        received: list[Message] = [decode(content) for piece in pieces for content in frames.feed(piece)]
        assert received == messages


def test_every_place_to_cut_comes_to_the_same() -> None:
    whole = framed(SAID)
    for at in range(len(whole) + 1):
        frames = Frames()
        contents = [*frames.feed(whole[:at]), *frames.feed(whole[at:])]
        assert list(map(from_model, contents)) == SAID


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_what_it_was(error: ApiError) -> None:
    message = from_model(frame(failed(7, error))[4:])
    arrived = error_of(message)  # type: ignore[arg-type]
    assert type(arrived) is type(error)
    assert (arrived.status, arrived.body(), arrived.headers) == (error.status, error.body(), error.headers)
    assert (vars(arrived), str(arrived)) == (vars(error), str(error))


def test_every_kind_of_error_can_be_sent() -> None:
    kinds: list[type[ApiError]] = [ApiError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        error = kind.__new__(kind, "m")
        vars(error).update(message="m", param=None, code=None)
        assert type(error_of(failed(1, error))) is kind
