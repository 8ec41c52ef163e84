"""How many tokens an answer has that nobody has counted."""

from __future__ import annotations

from msgspec import UNSET, json

from chatport.wire.chat import AudioDelta, ChatChunk, ChunkChoice, Delta, FinishReason, FunctionDelta, ToolCallDelta
from chatport.wire.tally import Estimate, Tally, usage_of


def chunk(delta: Delta, finish: FinishReason | None = None) -> ChatChunk:
    choices = [ChunkChoice(index=0, delta=delta, finish_reason=finish)]
    return ChatChunk(id="", created=0, model="m", choices=choices, system_fingerprint="")


def tally(*chunks: ChatChunk) -> Tally:
    one = Tally()
    for each in chunks:
        one.add(each)
    return one


def test_each_piece_is_a_token_at_least_and_four_bytes_are_one() -> None:
    assert tally(chunk(Delta(content="a")), chunk(Delta(content="b"))).tokens == 2
    assert tally(chunk(Delta(content="a" * 9))).tokens == 3
    assert tally(chunk(Delta(reasoning_content="春天来了"))).tokens == 3


def test_heads_and_ends_say_nothing_and_are_no_tokens() -> None:
    head, end = chunk(Delta(role="assistant", content="")), chunk(Delta(), "stop")
    assert tally(head, chunk(Delta(content="a")), end).tokens == 1
    assert tally(head, chunk(Delta(content="")), end).tokens == 0


def test_a_bound_is_never_below_the_bytes_and_counts_what_may_be_hidden() -> None:
    assert tally(chunk(Delta(content="春")), chunk(Delta(), "stop")).bound == 5
    call = ToolCallDelta(index=0, id="c", type="function", function=FunctionDelta(name="f", arguments=UNSET))
    assert tally(chunk(Delta(tool_calls=[call]))).bound > len(json.encode(call))


def test_sound_counts_by_its_length_in_time_and_its_transcript_as_text() -> None:
    second = AudioDelta(data="A" * 64_000)
    assert tally(chunk(Delta(audio=second))).tokens == 20
    assert tally(chunk(Delta(audio=AudioDelta(transcript="a" * 40)))).tokens == 10
    assert tally(chunk(Delta(audio=AudioDelta(data="AA==")))).tokens == 1
    assert 20 < tally(chunk(Delta(audio=second))).bound < 64_000


def test_an_estimate_looks_like_any_usage_on_the_wire() -> None:
    estimate = Estimate(prompt_tokens=2, completion_tokens=3, total_tokens=5)
    assert json.encode(estimate) == json.encode(usage_of(2, 3))
