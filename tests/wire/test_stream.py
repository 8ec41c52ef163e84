"""The grammar of a streamed answer: whatever a backend says, the client sees contract.md §10."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from chatport.wire.chat import (
    AudioDelta,
    ChatChunk,
    ChunkChoice,
    CustomDelta,
    Delta,
    FinishReason,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from chatport.wire.errors import InternalError
from chatport.wire.stream import (
    FRAME_STEP,
    NEXT,
    Aggregator,
    Envelope,
    Kind,
    State,
    StreamNormaliser,
    collect,
)
from support.stream_rules import check_same_answer, check_stream, joined

ENVELOPE = Envelope(id="chatcmpl-7", created=1_700_000_000, model="m", system_fingerprint="fp_7")
USAGE = Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)


def said(*choices: ChunkChoice, usage: Usage | None = None) -> ChatChunk:
    """A chunk as a sloppy upstream sends it."""
    return ChatChunk(id="up", created=0, model="up", choices=list(choices), system_fingerprint="", usage=usage)


def piece(
    index: int = 0, *, finish: FinishReason | None = None, logprobs: Logprobs | None = None, **delta: Any
) -> ChatChunk:
    return said(ChunkChoice(index=index, delta=Delta(**delta), finish_reason=finish, logprobs=logprobs))


def call(index: int = 0, *, id: str = "", name: str = "", text: str = "", type: str = "") -> ChatChunk:  # noqa: A002
    function = FunctionDelta(name=name or UNSET, arguments=text or UNSET)
    delta = ToolCallDelta(index=index, id=id or UNSET, type=type or UNSET, function=function)  # type: ignore[arg-type]
    return piece(tool_calls=[delta])


CITATION = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "url": "http://a", "title": "A"}}
CITED = Raw(msgspec.json.encode(CITATION))


def item(token: str) -> TokenLogprob:
    return TokenLogprob(token=token, logprob=-0.5, bytes=list(token.encode()))


def normalise(chunks: Iterable[ChatChunk], choices: int = 1, **options: Any) -> list[ChatChunk]:
    normaliser = StreamNormaliser(ENVELOPE, choices, **{"include_usage": False, **options})
    out = [sent for chunk in chunks for sent in normaliser.push(chunk)]
    return out + normaliser.finish()


def frames(chunks: Iterable[ChatChunk]) -> list[dict[str, Any]]:
    return [json.loads(msgspec.json.encode(chunk)) for chunk in chunks]


def deltas(*chunks: ChatChunk, choices: int = 1) -> list[dict[str, Any]]:
    """What a client sees of these, after the whole was checked: the deltas, a finish as its reason."""
    seen = frames(normalise(chunks, choices))
    check_stream(seen, choices=choices)
    return [frame["choices"][0]["finish_reason"] or frame["choices"][0]["delta"] for frame in seen]


ROLE = {"role": "assistant", "content": ""}
ROLE_OF_CALLS = {"role": "assistant", "content": None}
STOP = piece(finish="stop")


def test_the_table_has_a_way_to_the_end_from_everywhere() -> None:
    assert set(NEXT) == set(State)
    assert NEXT[State.NEW] == {Kind.ROLE: State.OPEN}
    assert all(NEXT[state][Kind.FINISH] is State.DONE for state in (State.OPEN, State.ANSWER))
    assert NEXT[State.DONE] == {}


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param(
            [piece(role="assistant", content=""), piece(content="Hel"), piece(content="lo"), STOP],
            [ROLE, {"content": "Hel"}, {"content": "lo"}, "stop"],
            id="a good stream stays as it is",
        ),
        pytest.param([piece(content="a"), STOP], [ROLE, {"content": "a"}, "stop"], id="a missing role is inserted"),
        pytest.param(
            [piece(role="assistant", content="a"), piece(role="assistant", content="b"), STOP],
            [ROLE, {"content": "a"}, {"content": "b"}, "stop"],
            id="a repeated role is removed",
        ),
        pytest.param(
            [piece(role="assistant", content="a", finish="length")],
            [ROLE, {"content": "a"}, "length"],
            id="role, text and finish in one chunk are parted",
        ),
        pytest.param(
            [piece(role="assistant"), piece(), piece(content=None), piece(content=""), piece(content="a"), STOP],
            [ROLE, {"content": "a"}, "stop"],
            id="deltas that say nothing are dropped",
        ),
        pytest.param([piece(finish="length")], [ROLE, "length"], id="an empty answer"),
        pytest.param([piece(role="assistant", content=None), STOP], [ROLE, "stop"], id="an empty answer with a role"),
        pytest.param(
            [piece(content="a"), STOP, piece(content="late"), piece(finish="length")],
            [ROLE, {"content": "a"}, "stop"],
            id="what comes after the finish is dropped",
        ),
        pytest.param(
            [piece(reasoning_content="hm"), piece(content="a"), piece(reasoning_content="late"), STOP],
            [ROLE_OF_CALLS, {"reasoning_content": "hm"}, {"content": "a"}, "stop"],
            id="reasoning comes before content",
        ),
        pytest.param(
            [piece(content="a", reasoning_content="hm", finish="stop")],
            [ROLE_OF_CALLS, {"reasoning_content": "hm"}, {"content": "a"}, "stop"],
            id="reasoning and content in one chunk",
        ),
        pytest.param(
            [piece(reasoning_content="hm", finish="length")],
            [ROLE_OF_CALLS, {"reasoning_content": "hm"}, {"content": ""}, "length"],
            id="a choice that only reasoned has empty content, not null",
        ),
        pytest.param(
            [piece(refusal="no"), piece(refusal=" way", content=""), STOP],
            [ROLE_OF_CALLS, {"refusal": "no"}, {"refusal": " way"}, "stop"],
            id="a refusal",
        ),
        pytest.param(
            [piece(content="a", refusal=None), piece(content="b", refusal=None), STOP],
            [ROLE, {"content": "a"}, {"content": "b"}, "stop"],
            id="nulls that some upstreams repeat are removed",
        ),
        pytest.param(
            [piece(content="a", annotations=[CITED]), piece(annotations=[]), piece(annotations=[CITED], finish="stop")],
            [ROLE, {"content": "a"}, {"annotations": [CITATION]}, {"annotations": [CITATION]}, "stop"],
            id="annotations come after their text and before the finish",
        ),
        pytest.param(
            [piece(annotations=[CITED]), piece(reasoning_content="hm"), piece(content="a"), STOP],
            [ROLE_OF_CALLS, {"annotations": [CITATION]}, {"reasoning_content": "hm"}, {"content": "a"}, "stop"],
            id="annotations do not begin the answer",
        ),
        pytest.param(
            [piece(annotations=[CITED]), STOP],
            [ROLE_OF_CALLS, {"annotations": [CITATION]}, {"content": ""}, "stop"],
            id="nothing but annotations has empty content",
        ),
        pytest.param(
            [
                piece(role="assistant", content=None, audio=AudioDelta(id="audio_1", transcript="Hi")),
                piece(audio=AudioDelta(data="AAA=")),
                piece(reasoning_content="late", audio=AudioDelta(expires_at=9), finish="stop"),
            ],
            [
                ROLE_OF_CALLS,
                {"audio": {"id": "audio_1", "transcript": "Hi"}},
                {"audio": {"data": "AAA="}},
                {"audio": {"expires_at": 9}},
                "stop",
            ],
            id="audio",
        ),
    ],
)
def test_texts(chunks: list[ChatChunk], expected: list[Any]) -> None:
    assert deltas(*chunks) == expected


def head(index: int, id: str, name: str) -> dict[str, Any]:  # noqa: A002
    return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]}


def more(index: int, text: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param(
            [call(id="c1", name="f", type="function"), call(text="{"), call(text="}")],
            [head(0, "c1", "f"), more(0, "{"), more(0, "}")],
            id="a good call stays as it is",
        ),
        pytest.param(
            [call(id="c1", name="f", text="{}")], [head(0, "c1", "f"), more(0, "{}")], id="a call sent whole is parted"
        ),
        pytest.param(
            [call(id="c1", name="f"), call(id="c1", name="f", type="function", text="{}")],
            [head(0, "c1", "f"), more(0, "{}")],
            id="a repeated head is removed",
        ),
        pytest.param(
            [call(3, id="c1", name="f", text="1"), call(9, id="c2", name="g", text="2"), call(3, text="3")],
            [head(0, "c1", "f"), more(0, "1"), head(1, "c2", "g"), more(1, "2"), more(0, "3")],
            id="indexes are made contiguous",
        ),
        pytest.param(
            [call(0, id="c1", name="f", text="1"), call(0, id="c2", name="g", text="2")],
            [head(0, "c1", "f"), more(0, "1"), head(1, "c2", "g"), more(1, "2")],
            id="a new id with a name is a new call, the index notwithstanding",
        ),
        pytest.param(
            [call(id="c1"), call(text="{"), call(name="f", text="}")],
            [head(0, "c1", "f"), more(0, "{}")],
            id="text is held until the name is known",
        ),
        pytest.param([call(5), call(id="c1", name="f")], [head(0, "c1", "f")], id="a piece that says nothing"),
        pytest.param(
            [piece(tool_calls=[], content="a"), call(id="c1", name="f")],
            [{"content": "a"}, head(0, "c1", "f")],
            id="text before a call",
        ),
    ],
)
def test_tool_calls(chunks: list[ChatChunk], expected: list[Any]) -> None:
    role = ROLE if "content" in expected[0] else ROLE_OF_CALLS
    assert deltas(*chunks, piece(finish="tool_calls")) == [role, *expected, "tool_calls"]


def test_missing_and_repeated_ids_are_made() -> None:
    chunks = [call(0, name="f"), call(1, name="g"), call(2, id="c", name="h"), call(3, id="c", name="i"), STOP]
    (choice,) = joined(frames(normalise(chunks)))
    ids = [made["id"] for made in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 4
    assert ids[2] == "c"
    assert all(made.startswith("call_") for made in (ids[0], ids[1], ids[3]))


def test_custom_calls() -> None:
    custom = ToolCallDelta(index=0, id="c1", custom=CustomDelta(name="sql", input="SELECT"))
    later = ToolCallDelta(index=0, custom=CustomDelta(input=" 1"))
    assert deltas(piece(tool_calls=[custom]), piece(tool_calls=[later]), STOP)[1:4] == [
        {"tool_calls": [{"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "SELECT"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": " 1"}}]},
    ]


def test_function_calls() -> None:
    chunks = [
        piece(function_call=FunctionDelta()),
        piece(function_call=FunctionDelta(name="f", arguments="{")),
        piece(function_call=FunctionDelta(name="f", arguments="}")),
        piece(finish="function_call"),
    ]
    assert deltas(*chunks) == [
        ROLE_OF_CALLS,
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{"}},
        {"function_call": {"arguments": "}"}},
        "function_call",
    ]


def test_several_choices_in_a_chunk_are_parted() -> None:
    both = [ChunkChoice(index=index, delta=Delta(content=f"{index}"), finish_reason="stop") for index in (1, 0)]
    seen = frames(normalise([said(*both)], 2))
    check_stream(seen, choices=2)
    assert [frame["choices"][0]["index"] for frame in seen] == [1, 1, 1, 0, 0, 0]
    assert [choice["message"]["content"] for choice in joined(seen)] == ["0", "1"]


def test_logprobs_travel_with_their_text() -> None:
    logprobs = [Logprobs(content=[item(token)]) for token in "abc"]
    chunks = [
        piece(role="assistant", content="a", logprobs=logprobs[0]),
        piece(content="b", logprobs=logprobs[1]),
        piece(content="c", logprobs=logprobs[2], finish="stop"),
    ]
    seen = frames(normalise(chunks))
    check_stream(seen, logprobs=True)
    tokens = [[it["token"] for it in (frame["choices"][0]["logprobs"] or {}).get("content", ())] for frame in seen]
    assert tokens == [[], ["a"], ["b"], ["c"], []]


def test_a_token_inside_a_character_keeps_its_logprobs() -> None:
    halves = [TokenLogprob(token="", logprob=-1.0, bytes=[byte]) for byte in "é".encode()]
    chunks = [
        piece(content="", logprobs=Logprobs(content=halves[:1])),
        piece(content="é", logprobs=Logprobs(content=halves[1:])),
        STOP,
    ]
    seen = frames(normalise(chunks))
    check_stream(seen, logprobs=True)
    assert [len((frame["choices"][0]["logprobs"] or {"content": ()})["content"]) for frame in seen] == [0, 1, 1, 0]


def test_logprobs_of_a_call_make_no_text() -> None:
    function = FunctionDelta(name="f", arguments="{}")
    chunk = piece(
        tool_calls=[ToolCallDelta(index=0, id="c", function=function)], logprobs=Logprobs(content=[item("{}")])
    )
    assert deltas(chunk, STOP) == [ROLE_OF_CALLS, head(0, "c", "f"), more(0, "{}"), "stop"]


@pytest.mark.parametrize(
    "usage_chunks",
    [
        [piece(content="a", finish="stop"), said(usage=USAGE)],
        [piece(content="a"), msgspec.structs.replace(STOP, usage=USAGE)],
    ],
    ids=["a chunk of its own", "with the finish"],
)
def test_usage_is_said_once_and_only_when_asked_for(usage_chunks: list[ChatChunk]) -> None:
    check_stream(frames(normalise(usage_chunks)))
    seen = frames(normalise(usage_chunks, include_usage=True))
    check_stream(seen, include_usage=True)
    assert seen[-1]["usage"]["total_tokens"] == 7


def test_the_last_usage_counts() -> None:
    early = Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4)
    normaliser = StreamNormaliser(ENVELOPE, 1, include_usage=False)
    assert normaliser.usage is None
    normaliser.push(said(usage=early))
    normaliser.push(said(usage=USAGE))
    assert normaliser.usage == USAGE


def test_the_envelope_is_ours() -> None:
    for frame in frames(normalise([piece(content="a"), STOP])):
        assert (frame["id"], frame["model"], frame["service_tier"]) == ("chatcmpl-7", "m", "default")
        assert "obfuscation" not in frame


@pytest.mark.parametrize("text", ["a", "a longer piece of text", "你好", '"\\\n'])
def test_obfuscation_hides_the_length_of_the_text(text: str) -> None:
    for chunk in normalise([piece(content=text), STOP], include_obfuscation=True):
        assert chunk.obfuscation
        assert len(msgspec.json.encode(chunk)) % FRAME_STEP == 0


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        pytest.param([], "before it was complete", id="no answer at all"),
        pytest.param([piece(content="a")], "before it was complete", id="a choice that never ends"),
        pytest.param([piece(1, content="a"), STOP], "choice 1; 1 were asked for", id="an index nobody asked for"),
        pytest.param([piece(-1, content="a"), STOP], "choice -1", id="a negative index"),
        pytest.param([call(id="c1", text="{}"), STOP], "without naming it", id="a call without a name"),
        pytest.param(
            [piece(function_call=FunctionDelta(arguments="{}")), STOP], "without naming it", id="a function too"
        ),
    ],
)
def test_what_would_mean_inventing_is_refused(chunks: list[ChatChunk], sentence: str) -> None:
    with pytest.raises(InternalError, match=sentence):
        normalise(chunks)


def test_an_answer_without_its_usage_is_refused() -> None:
    with pytest.raises(InternalError, match="did not say"):
        normalise([STOP], include_usage=True)


# --- any sequence of chunks ------------------------------------------------------------------------------------------

TEXT = st.sampled_from(["", "a", "bc", "你", "\x00", " "])
MAYBE_TEXT = TEXT | st.none() | st.just(UNSET)
FUNCTION = st.builds(FunctionDelta, name=st.sampled_from([UNSET, "", "f", "g"]), arguments=TEXT | st.just(UNSET))
CUSTOM = st.builds(CustomDelta, name=st.sampled_from([UNSET, "", "f"]), input=TEXT | st.just(UNSET))
CALL = st.builds(
    ToolCallDelta,
    index=st.integers(0, 3),
    id=st.sampled_from([UNSET, "", "c1", "c2"]),
    type=st.sampled_from([UNSET, "function", "custom"]),
    function=st.just(UNSET) | FUNCTION,
    custom=st.just(UNSET) | CUSTOM,
)
AUDIO = st.builds(
    AudioDelta,
    id=st.sampled_from([UNSET, "audio_1"]),
    data=st.sampled_from(["AQ==", "AQI=", "AQID"]),
    transcript=TEXT | st.just(UNSET),
    expires_at=st.sampled_from([UNSET, 9]),
)
DELTA = st.builds(
    Delta,
    role=st.sampled_from([UNSET, "assistant"]),
    content=MAYBE_TEXT,
    refusal=MAYBE_TEXT,
    reasoning_content=TEXT | st.just(UNSET),
    tool_calls=st.just(UNSET) | st.lists(CALL, max_size=2),
    function_call=st.just(UNSET) | FUNCTION,
    audio=st.just(UNSET) | AUDIO,
    annotations=st.just(UNSET) | st.lists(st.just(CITED), max_size=2),
)
ITEMS = st.none() | st.lists(st.builds(item, TEXT), max_size=2)
CHOICE = st.builds(
    ChunkChoice,
    index=st.integers(0, 2),
    delta=DELTA | st.builds(Delta, content=TEXT),
    logprobs=st.none() | st.builds(Logprobs, content=ITEMS, refusal=ITEMS),
    finish_reason=st.sampled_from([None, None, None, "stop", "tool_calls"]),
)
CHUNKS = st.lists(st.builds(lambda choices: said(*choices, usage=USAGE), st.lists(CHOICE, max_size=3)), max_size=12)
ENDS = said(*(ChunkChoice(index=index, delta=Delta(), finish_reason="stop") for index in range(3)), usage=USAGE)


def test_calls_are_counted_in_the_order_of_their_heads() -> None:
    held = ToolCallDelta(index=0, function=FunctionDelta(arguments="1"))
    first = ToolCallDelta(index=1, function=FunctionDelta(name="f", arguments="2"))
    named = ToolCallDelta(index=0, function=FunctionDelta(name="g"))
    pieces = [ChunkChoice(index=0, delta=Delta(tool_calls=[each])) for each in (held, first, named)]
    told = frames(normalise([said(*pieces), said(ChunkChoice(index=0, delta=Delta(), finish_reason="tool_calls"))]))
    check_stream(told)
    (choice,) = joined(told)
    calls = [call["function"] for call in choice["message"]["tool_calls"]]
    assert calls == [{"name": "f", "arguments": "2"}, {"name": "g", "arguments": "1"}]


def test_annotations_carry_no_logprobs() -> None:
    """Read again, they would need a text to travel with, and the role before it would be another."""
    delta = Delta(annotations=[Raw(b"{}")], function_call=FunctionDelta())
    told = normalise([said(ChunkChoice(index=0, delta=delta, logprobs=Logprobs(content=[item("a")]))), ENDS], 3)
    assert any(choice.delta.annotations for chunk in told for choice in chunk.choices)
    assert not any(choice.logprobs for chunk in told for choice in chunk.choices)


@given(chunks=CHUNKS, include_usage=st.booleans())
def test_whatever_is_said_the_client_sees_the_grammar(chunks: list[ChatChunk], include_usage: bool) -> None:
    try:
        sent = normalise([*chunks, ENDS], 3, include_usage=include_usage)
    except InternalError as error:
        if "without naming it" not in error.message:  # nothing else in these chunks is beyond repair
            raise
        return
    check_stream(frames(sent), choices=3, include_usage=include_usage)
    assert normalise([*sent, said(usage=USAGE)], 3, include_usage=include_usage) == sent, "the grammar changes its own"


@given(chunks=CHUNKS)
def test_no_text_is_lost_before_the_finish(chunks: list[ChatChunk]) -> None:
    try:
        sent = normalise([*chunks, ENDS], 3)
    except InternalError:
        return
    for choice in joined(frames(sent)):
        expected = {"content": "", "refusal": ""}
        for given_choice in (c for chunk in [*chunks, ENDS] for c in chunk.choices if c.index == choice["index"]):
            expected["content"] += given_choice.delta.content or ""
            expected["refusal"] += given_choice.delta.refusal or ""
            if given_choice.finish_reason:
                break
        assert (choice["message"]["content"] or "") == expected["content"]
        assert (choice["message"].get("refusal") or "") == expected["refusal"]


@given(chunks=CHUNKS)
def test_joined_deltas_are_the_whole_answer(chunks: list[ChatChunk]) -> None:
    answer = Aggregator()
    try:
        sent = normalise([*chunks, ENDS], 3)
    except InternalError:
        return
    for chunk in sent:
        answer.push(chunk)
    whole = json.loads(msgspec.json.encode(answer.result(USAGE)))
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    check_same_answer(frames(sent), whole)


def whole(*chunks: ChatChunk) -> dict[str, Any]:
    """The reply that does not stream, compared with the stream by rules of the test's own."""
    sent = normalise(chunks)
    answer = Aggregator()
    for chunk in sent:
        answer.push(chunk)
    reply: dict[str, Any] = json.loads(msgspec.json.encode(answer.result(USAGE)))
    check_same_answer(frames(sent), reply)
    return reply


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        pytest.param([piece(content="a"), piece(content="b")], {"content": "ab", "refusal": None}, id="text"),
        pytest.param([], {"content": "", "refusal": None}, id="nothing"),
        pytest.param([piece(refusal="no")], {"content": None, "refusal": "no"}, id="refusal"),
        pytest.param(
            [piece(reasoning_content="hm"), piece(reasoning_content="."), piece(content="a")],
            {"content": "a", "refusal": None, "reasoning_content": "hm."},
            id="reasoning",
        ),
        pytest.param(
            [piece(reasoning_content="hm")], {"content": "", "refusal": None, "reasoning_content": "hm"}, id="no more"
        ),
        pytest.param(
            [call(1, id="c1", name="f", text="{"), call(0, id="c2", name="g"), call(1, text="}")],
            {
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
            id="tool calls",
        ),
        pytest.param(
            [piece(tool_calls=[ToolCallDelta(index=0, id="c1", custom=CustomDelta(name="sql", input="x"))])],
            {
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "x"}}],
            },
            id="custom call",
        ),
        pytest.param(
            [piece(function_call=FunctionDelta(name="f", arguments="{}"))],
            {"content": None, "refusal": None, "function_call": {"name": "f", "arguments": "{}"}},
            id="function call",
        ),
        pytest.param(
            [piece(content="a", annotations=[CITED]), piece(annotations=[CITED])],
            {"content": "a", "refusal": None, "annotations": [CITATION, CITATION]},
            id="annotations",
        ),
        pytest.param(
            [
                piece(audio=AudioDelta(id="audio_1", transcript="H", data="AQID")),
                piece(audio=AudioDelta(id="audio_1", transcript="i", data="BA==", expires_at=9)),
            ],
            {
                "content": None,
                "refusal": None,
                "audio": {"id": "audio_1", "data": "AQIDBA==", "transcript": "Hi", "expires_at": 9},
            },
            id="audio",
        ),
        pytest.param(
            [piece(audio=AudioDelta(data="AQ==")), piece(audio=AudioDelta(data="AgM="))],
            {"content": None, "refusal": None, "audio": {"data": "AQID", "transcript": ""}},
            id="audio in pieces that are each padded",
        ),
    ],
)
def test_the_reply_that_does_not_stream(chunks: list[ChatChunk], message: dict[str, Any]) -> None:
    reply = whole(*chunks, STOP)
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "annotations": [], **message}
    assert choice["logprobs"] is None
    assert (reply["id"], reply["object"], reply["service_tier"]) == ("chatcmpl-7", "chat.completion", "default")


def test_the_reply_holds_the_logprobs() -> None:
    reply = whole(
        piece(content="a", logprobs=Logprobs(content=[item("a")])),
        piece(refusal="b", logprobs=Logprobs(content=None, refusal=[item("b")])),
        STOP,
    )
    logprobs = reply["choices"][0]["logprobs"]
    assert [[it["token"] for it in logprobs[key]] for key in ("content", "refusal")] == [["a"], ["b"]]


def test_an_answer_that_is_not_whole_is_no_reply() -> None:
    with pytest.raises(InternalError):
        Aggregator().result(USAGE)
    answer = Aggregator()
    answer.push(piece(content="a"))
    with pytest.raises(InternalError):
        answer.result(USAGE)


async def test_collect_joins_what_a_backend_streams() -> None:
    async def chunks(*given_chunks: ChatChunk) -> Any:
        for chunk in given_chunks:
            yield chunk

    reply = await collect(ENVELOPE, 1, chunks(piece(content="a"), piece(content="b", finish="stop"), said(usage=USAGE)))
    assert (reply.choices[0].message.content, reply.usage) == ("ab", USAGE)
    with pytest.raises(InternalError, match="did not say"):
        await collect(ENVELOPE, 1, chunks(STOP))
