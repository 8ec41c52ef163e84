"""Server-sent events: every split of the same bytes gives the same events."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.wire import sse
from chatport.wire.chat import ChatChunk, ChunkChoice, Delta
from chatport.wire.errors import InternalError, RateLimited


def chunk(text: str) -> ChatChunk:
    choice = ChunkChoice(index=0, delta=Delta(content=text))
    return ChatChunk(id="chatcmpl-1", created=1, model="m", choices=[choice], system_fingerprint="fp_1")


def decode(*pieces: bytes, max_frame: int = sse.MAX_FRAME) -> list[bytes]:
    decoder = sse.SSEDecoder(max_frame)
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize("text", ["plain", "line\nbreak\r\n", "\u2028\u2029\x85", "\x00", "你好 🦙", ""])
def test_a_frame_is_one_line_of_data(text: str) -> None:
    framed = sse.frame(chunk(text))
    assert framed.startswith(b"data: {")
    assert framed.endswith(b"}\n\n")
    assert framed.count(b"\n") == 2
    assert b"\r" not in framed
    assert json.loads(framed[6:])["choices"][0]["delta"] == {"content": text}


def test_all_four_keys_of_a_choice_are_written() -> None:
    (choice,) = json.loads(sse.frame(chunk("x"))[6:])["choices"]
    assert choice == {"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}


def test_an_error_frame_is_the_error_object() -> None:
    framed = sse.error_frame(RateLimited("Slow down."))
    assert framed.endswith(b"}\n\n")
    assert json.loads(framed.removeprefix(b"data: ")) == {
        "error": {
            "message": "Slow down.",
            "type": "rate_limit_exceeded",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"data: a\n\n", [b"a"], id="LF"),
        pytest.param(b"data: a\r\n\r\n", [b"a"], id="CRLF"),
        pytest.param(b"data: a\r\rdata: b\r\r", [b"a", b"b"], id="CR"),
        pytest.param(b"data: a\r\n\rdata: b\n\r\n", [b"a", b"b"], id="mixed line ends"),
        pytest.param(b"data: a\ndata: b\n\n", [b"a\nb"], id="several data lines"),
        pytest.param(b"data\ndata\n\n", [b"\n"], id="data without colon"),
        pytest.param(b"data:\n\n", [b""], id="empty data is an event"),
        pytest.param(b"data:a\ndata:  b\n\n", [b"a\n b"], id="one space is taken off"),
        pytest.param(b": ping\n\n:\n\ndata: a\n\n", [b"a"], id="comments"),
        pytest.param(b"event: error\nid: 7\nretry: 10\ndata: a\n\n", [b"a"], id="other fields"),
        pytest.param(b"event: ping\n\ndata: a\n\n", [b"a"], id="an event without data"),
        pytest.param(b"dataset: x\n data: y\ndata : z\n\n", [], id="fields that only look like data"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"], id="a BOM only at the start"),
        pytest.param(b"\n\n\n\ndata: a\n\n\n", [b"a"], id="blank lines"),
        pytest.param(b"data: a\n\ndata: cut short\n", [b"a"], id="an event that was cut short"),
        pytest.param(b'data: {"a": "\xe4\xbd\xa0"}\n\n', [b'{"a": "\xe4\xbd\xa0"}'], id="UTF-8"),
        pytest.param(b"data: [DONE]\n\n", [b"[DONE]"], id="DONE"),
    ],
)
def test_events_at_every_split(stream: bytes, events: list[bytes]) -> None:
    assert decode(stream) == events
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == events
    for split in range(len(stream) + 1):
        assert decode(stream[:split], b"", stream[split:]) == events


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"data: a\n\n", b"data: b: c\n\n"], id="one after the other"),
        pytest.param([b"data: a\rdata: b\n\n"], id="a CR inside"),
        pytest.param([b"data: a\r\n\n"], id="a CR at the end of the line"),
        pytest.param([b"data: a\r\n\r", b"\ndata: b\n\n"], id="CRLF that was split"),
        pytest.param([b"data:a\n\n", b"data: \n\n", b"data\n\n"], id="without space or value"),
        pytest.param([b"dataset: a\n\n", b"id: data: a\n\n", b": data: a\n\n"], id="none"),
        pytest.param([b"data: a\n", b"data: b\n\n"], id="the end of a longer one"),
        pytest.param([b"event: x\nda", b"data: b\n\n", b"data: c\n\n"], id="the end of a line"),
    ],
)
def test_events_that_arrive_alone_are_read_as_any_others(pieces: list[bytes]) -> None:
    assert decode(b":\n\n", *pieces) == decode(b":\n\n" + b"".join(pieces) + b":")


LINES = st.lists(
    st.sampled_from(
        [b"data: ", b"data:", b"data", b":", b"event: x", b"a", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf"]
    ),
    max_size=40,
).map(b"".join)


@given(stream=LINES | st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_any_split_of_any_bytes_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), max(60, len(stream))]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert decode(*pieces) == decode(stream)


@given(texts=st.lists(st.text(max_size=20), max_size=5), newline=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_what_we_frame_is_what_we_read(texts: list[str], newline: bytes) -> None:
    stream = b"".join(sse.frame(chunk(text)) for text in texts) + sse.COMMENT + sse.DONE
    *events, done = decode(stream.replace(b"\n", newline))
    assert [json.loads(event)["choices"][0]["delta"]["content"] for event in events] == texts
    assert done == b"[DONE]"


def test_an_event_may_be_as_large_as_the_limit() -> None:
    event = b"data: " + b"x" * 58 + b"\n\n"
    assert decode(event + event, max_frame=64) == [b"x" * 58] * 2


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * 59, b": " + b"x" * 63, b"data\n" * 65, b"data: " + b"x" * 40 + b"\ndata: yyyyyyyyyyyyyyyyyy"],
)
def test_a_larger_event_is_refused_whatever_the_split(stream: bytes, size: int) -> None:
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    with pytest.raises(InternalError, match="more than 64 bytes"):
        decode(*pieces, max_frame=64)
    with pytest.raises(InternalError, match="more than 64 bytes"):
        decode(b"\n", stream + b"\n\n", max_frame=64)


def test_comments_without_end_are_not_kept() -> None:
    decoder = sse.SSEDecoder(max_frame=64)
    for _ in range(100):
        assert decoder.feed(b": still here\n") == []
    assert decoder.feed(b"data: a\n\n") == [b"a"]
