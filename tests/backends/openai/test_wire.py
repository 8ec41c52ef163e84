"""Streams and replies as providers send them, each with its habits, and what our client gets of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.openai.counting import bound_of
from chatport.backends.openai.reading import ReadLimits, StreamReader, read
from chatport.backends.openai.refusals import Asked
from chatport.backends.openai.reply import (
    MOST_TOKENS,
    SaidCompletionDetails,
    SaidPromptDetails,
    SaidUsage,
    completion_of,
    usage_of,
)
from chatport.policy.prices import Rates, TokenRates, Tokens, cost_pico, most
from chatport.wire.chat import ChatChunk
from chatport.wire.errors import UpstreamFailed
from chatport.wire.stream import Envelope, StreamNormaliser
from chatport.wire.tally import Estimate
from support.backend_suite import ask
from support.recorded import CASES, CITATION, NONE, STOP, delta
from support.stream_rules import check_stream, joined

ASKED = Asked("t", "far", "near")
REQUEST = ask("hi", stream=True)


class Told(NamedTuple):
    """What a stream comes to: content, reasoning, finish, tool calls, prompt and completion tokens."""

    content: str | None
    finish: str = "stop"
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    usage: tuple[int, int] = (9, 3)
    cached: int = 0


WEATHER = (("weather", "{}"),)
PEKING = (("weather", '{"city": "北京"}'),)

TOLD: dict[str, Told] = {
    "openai.text": Told("Hi", usage=(2006, 300), cached=1920),
    "openai.tools": Told(
        None, "tool_calls", calls=(("weather", '{"city":"北京"}'), ("time", "{}")), usage=(2006, 300), cached=1920
    ),
    "openai.audio": Told(None),
    "openai.search": Told("Hi"),
    "deepseek.text": Told("Hi", reasoning="hm", usage=(16, 10), cached=12),
    "deepseek.tools": Told(None, "tool_calls", calls=PEKING, cached=8),
    "moonshot.text": Told("Hi", cached=6),
    "moonshot.tools": Told(None, "tool_calls", calls=WEATHER, cached=6),
    "zhipu.text": Told("Hi", "content_filter", "hm"),
    "zhipu.tools": Told(None, "tool_calls", calls=PEKING),
    "mistral.text": Told("Hi", "length", "hm"),
    "mistral.tools": Told(None, "tool_calls", calls=WEATHER),
    "groq.text": Told("Hi", reasoning="hm"),
    "groq.tools": Told(None, "tool_calls", calls=(*WEATHER, ("time", "{}"))),
    "openrouter.text": Told("Hi", reasoning="hm"),
    "openrouter.tools": Told(None, "tool_calls", calls=WEATHER),
    "vllm.text": Told("Hi", reasoning="hm"),
    "vllm.tools": Told(None, "tool_calls", calls=(("f", '{"a": 1}'),)),
    "ollama.text": Told("Hi", reasoning="hm"),
    "ollama.tools": Told(None, "tool_calls", calls=(("f", '{"a":1}'),)),
    "llama-server.text": Told("Hi", reasoning="hm"),
    "llama-server.tools": Told(None, "tool_calls", calls=(("f", "{}"),)),
}


def chunks(reader: StreamReader, data: bytes) -> Iterator[ChatChunk]:
    return (reader.chunk(event) for event in reader.feed(data))


@pytest.mark.parametrize("size", [1, 17, 100_000])
@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_what_it_was_and_correct(name: str, size: int) -> None:
    told, data = TOLD[name], CASES[name].stream
    reader = StreamReader(ASKED, 1, bound_of(REQUEST), ReadLimits(), whole=False)
    grammar = StreamNormaliser(Envelope("chatcmpl-1", 1, "near", "fp_1"), 1, include_usage=True)
    sent = []
    for at in range(0, len(data), size):
        for chunk in chunks(reader, data[at : at + size]):
            sent += grammar.push(chunk)
    for chunk in reader.end():
        sent += grammar.push(chunk)
    frames = json.loads(msgspec.json.encode(sent + grammar.finish()))
    assert reader.done
    check_stream(frames, choices=1, include_usage=True)
    (choice,) = joined(frames)
    message = choice["message"]
    assert (message["content"], choice["finish_reason"]) == (told.content, told.finish)
    assert message.get("reasoning_content", "") == told.reasoning
    assert [
        (call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", [])
    ] == list(told.calls)
    usage = frames[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == told.usage
    assert usage["prompt_tokens_details"]["cached_tokens"] == told.cached


SPOKEN = (
    '"role":"assistant","refusal":null,"audio":{"id":"audio_1","transcript":"Hi"}',
    '"audio":{"id":"audio_1","data":"AQID"}',
    '"audio":{"id":"audio_1","data":"BA=="},"annotations":null',
    '"audio":{"id":"audio_1","expires_at":9}',
)
CITED = ('"content":"Hi"', f'"content":"","annotations":[{json.dumps(CITATION)}]', '"annotations":[],"audio":null')


def streamed(*deltas: str) -> list[dict[str, Any]]:
    """What a client gets of these."""
    frames = "".join(f"data: {delta(each, NONE)}\n\n" for each in deltas) + f"data: {delta('', STOP)}\n\n"
    reader = StreamReader(ASKED, 1, bound_of(REQUEST), ReadLimits(), whole=False)
    grammar = StreamNormaliser(Envelope("chatcmpl-1", 1, "near", "fp_1"), 1, include_usage=False)
    sent = [said for chunk in chunks(reader, frames.encode()) for said in grammar.push(chunk)]
    told: list[dict[str, Any]] = json.loads(msgspec.json.encode(sent + grammar.finish()))
    check_stream(told)
    return told


HI = '"content":"Hi"'


def test_what_was_said_before_a_fault_goes_out_before_it() -> None:
    reader = StreamReader(ASKED, 1, bound_of(REQUEST), ReadLimits(), whole=False)
    said = chunks(reader, f"data: {delta(HI, NONE)}\n\ndata: garbage\n\n".encode())
    assert next(said).choices[0].delta.content == "Hi"
    with pytest.raises(UpstreamFailed):
        next(said)


def test_nothing_is_read_behind_the_end() -> None:
    reader = StreamReader(ASKED, 1, bound_of(REQUEST), ReadLimits(), whole=False)
    (chunk,) = chunks(reader, f"data: {delta(HI, STOP)}\n\ndata: [DONE]\n\ndata: garbage\n\n".encode())
    assert chunk.choices[0].finish_reason == "stop"
    assert reader.done
    assert reader.finished


def test_audio_and_annotations_are_streamed_as_they_came() -> None:
    spoken = [frame["choices"][0]["delta"] for frame in streamed(*SPOKEN)]
    assert [said["audio"] for said in spoken[1:-1]] == [
        {"id": "audio_1", "transcript": "Hi"},
        {"id": "audio_1", "data": "AQID"},
        {"id": "audio_1", "data": "BA=="},
        {"id": "audio_1", "expires_at": 9},
    ]
    cited = [frame["choices"][0]["delta"] for frame in streamed(*CITED)]
    assert cited[1:-1] == [{"content": "Hi"}, {"annotations": [CITATION]}]


@pytest.mark.parametrize("given", ["null", "[]", "{}", "5", '"x"', '{"data":5}', '[5,null,"x"]'])
def test_what_is_no_audio_and_no_annotation_is_left_out(given: str) -> None:
    said = streamed('"content":"Hi"', f'"audio":{given},"annotations":{given}')
    assert [frame["choices"][0]["delta"] for frame in said] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi"},
        {},
    ]


def test_what_a_raw_object_holds_is_written_anew() -> None:
    """A stream's frame is one line of UTF-8, whatever an upstream sends as its whole answer instead."""
    reply = b'{"choices":[{"message":{"content":"Hi","annotations":[{\n"a":1}, {"b":"\xff"}]},"finish_reason":"stop"}]}'
    (chunk, _) = [
        *chunks(reader := StreamReader(ASKED, 1, bound_of(REQUEST), ReadLimits(), whole=True), reply),
        *reader.end(),
    ]
    assert chunk.choices[0].delta.annotations == [msgspec.Raw(b'{"a":1}')]
    whole = completion_of(read(reply, ASKED), 1, bound_of(REQUEST))
    assert whole.choices[0].message.annotations == [msgspec.Raw(b'{"a":1}')]


def test_a_spoken_reply_has_no_content() -> None:
    audio = {"id": "audio_1", "data": "AQID", "transcript": "Hi", "expires_at": 9}
    (choice,) = completed({"choices": [{"message": {"content": None, "audio": audio}, "finish_reason": "stop"}]})[
        "choices"
    ]
    assert (choice["message"]["content"], choice["message"]["audio"]) == (None, audio)


@pytest.mark.parametrize("name", CASES)
def test_a_whole_reply_comes_to_the_same_as_its_stream(name: str) -> None:
    told = TOLD[name]
    (choice,) = completed(CASES[name].reply)["choices"]
    message = choice["message"]
    assert (message["content"], choice["finish_reason"]) == (told.content, told.finish)
    assert message.get("reasoning_content", "") == told.reasoning
    calls = [call["function"] for call in message.get("tool_calls", [])]
    assert [(call["name"], call["arguments"]) for call in calls] == list(told.calls)


def completed(reply: dict[str, Any], n: int = 1) -> dict[str, Any]:
    piece = read(msgspec.json.encode(reply), ASKED)
    whole: dict[str, Any] = json.loads(msgspec.json.encode(completion_of(piece, n, bound_of(REQUEST))))
    return whole


def test_a_reply_without_ids_indexes_and_usage() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    reply = completed({"choices": [{"message": {"content": None, "tool_calls": [call, call]}, "finish_reason": None}]})
    (choice,) = reply["choices"]
    first, second = choice["message"]["tool_calls"]
    assert first["id"] != second["id"]
    assert (first["type"], first["function"]) == ("function", {"name": "f", "arguments": '{"a":1}'})
    assert (choice["index"], choice["finish_reason"], choice["message"]["content"]) == (0, "tool_calls", None)
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"] > 0


def test_choices_that_all_have_the_same_index() -> None:
    choices = [{"index": 0, "message": {"content": text}, "finish_reason": "stop"} for text in "ab"]
    reply = completed({"choices": choices}, 2)
    assert [(choice["index"], choice["message"]["content"]) for choice in reply["choices"]] == [(0, "a"), (1, "b")]


def test_choices_in_another_order() -> None:
    choices = [{"index": index, "message": {"content": str(index)}, "finish_reason": "stop"} for index in (1, 0)]
    reply = completed({"choices": choices}, 2)
    assert [choice["message"]["content"] for choice in reply["choices"]] == ["0", "1"]


def test_an_empty_list_of_calls_is_none_and_empty_content_a_text() -> None:
    (choice,) = completed({"choices": [{"message": {"content": None, "tool_calls": []}, "finish_reason": "eos"}]})[
        "choices"
    ]
    assert "tool_calls" not in choice["message"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")


def test_logprobs_with_less_than_there_should_be() -> None:
    content = [{"token": "Hi", "logprob": 0.0001, "top_logprobs": None}]
    choice = {"message": {"content": "Hi"}, "logprobs": {"content": content}, "finish_reason": "stop"}
    (answered,) = completed({"choices": [choice]})["choices"]
    item = {"token": "Hi", "logprob": 0.0, "bytes": None, "top_logprobs": []}
    assert answered["logprobs"] == {"content": [item], "refusal": None}


ABSURD = ('{"prompt_tokens":-5,"completion_tokens":3}', '{"prompt_tokens":5,"completion_tokens":99999999999999999999}')


@pytest.mark.parametrize("usage", ["null", '{"prompt_tokens":null}', *ABSURD])
def test_a_usage_that_is_not_said_or_absurd_is_estimated_and_known_as_an_estimate(usage: str) -> None:
    whole = f'{{"choices":[{{"message":{{"content":"Hi there."}},"finish_reason":"stop"}}],"usage":{usage}}}'.encode()
    bound = bound_of(REQUEST)
    reply = completion_of(read(whole, ASKED), 1, bound)
    frames = [
        delta('"role":"assistant"', NONE),
        delta('"content":"Hi there."', NONE),
        delta("", STOP, f',"usage":{usage}'),
    ]
    reader = StreamReader(ASKED, 1, bound, ReadLimits(), whole=False)
    sent = "".join(f"data: {frame}\n\n" for frame in frames)
    streamed = [*chunks(reader, sent.encode()), *reader.end()][-1].usage
    expected = Estimate(
        prompt_tokens=bound.prompt_tokens // 4, completion_tokens=3, total_tokens=bound.prompt_tokens // 4 + 3
    )
    assert [reply.usage, streamed] == [expected, expected]
    assert isinstance(reply.usage, Estimate)
    assert isinstance(streamed, Estimate)


GOLDEN = {
    "openai": (
        (
            '{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,'
            '"prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},'
            '"completion_tokens_details":{"reasoning_tokens":192,"audio_tokens":0,"accepted_prediction_tokens":0,'
            '"rejected_prediction_tokens":0}}'
        ),
        Tokens(prompt=2006, cached=1920, completion=300, reasoning=192),
    ),
    "openai, sound": (
        (
            '{"prompt_tokens":100,"completion_tokens":60,"total_tokens":160,'
            '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":80},'
            '"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":50}}'
        ),
        Tokens(prompt=100, audio_prompt=80, completion=60, audio_completion=50),
    ),
    "openai, a cache written and images": (
        (
            '{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,'
            '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0,"text_tokens":806,"image_tokens":1200,'
            '"cache_write_tokens":768},"completion_tokens_details":{"reasoning_tokens":0,"text_tokens":300}}'
        ),
        Tokens(prompt=2006, cache_write=768, image=1200, completion=300),
    ),
    "openrouter": (
        (
            '{"prompt_tokens":2000,"completion_tokens":100,"total_tokens":2100,"cost":0.0123,'
            '"prompt_tokens_details":{"cached_tokens":1500,"cache_write_tokens":350,"audio_tokens":0,"video_tokens":0},'
            '"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":0}}'
        ),
        Tokens(prompt=2000, cached=1500, cache_write=350, completion=100),
    ),
    "litellm": (
        (
            '{"prompt_tokens":98805,"completion_tokens":5120,"total_tokens":103925,"prompt_tokens_details":'
            '{"audio_tokens":null,"cached_tokens":66360,"text_tokens":null,"image_tokens":null,'
            '"cache_creation_tokens":32435},"completion_tokens_details":{"reasoning_tokens":1710,"text_tokens":null},'
            '"cache_creation_input_tokens":32435,"cache_read_input_tokens":66360}'
        ),
        Tokens(prompt=98805, cached=66360, cache_write=32435, completion=5120, reasoning=1710),
    ),
    "databricks": (
        (
            '{"prompt_tokens":5000,"completion_tokens":20,"total_tokens":5020,"cache_read_input_tokens":3000,'
            '"cache_creation_input_tokens":1500}'
        ),
        Tokens(prompt=5000, cached=3000, cache_write=1500, completion=20),
    ),
    "dashscope": (
        (
            '{"prompt_tokens":1610,"completion_tokens":30,"total_tokens":1640,"prompt_tokens_details":'
            '{"cached_tokens":0,"cache_type":"ephemeral","cache_creation":{"ephemeral_5m_input_tokens":1605},'
            '"cache_creation_input_tokens":1605}}'
        ),
        Tokens(prompt=1610, cache_write=1605, completion=30),
    ),
    "dashscope, an image": (
        (
            '{"prompt_tokens":1271,"completion_tokens":40,"total_tokens":1311,'
            '"prompt_tokens_details":{"image_tokens":1247,"text_tokens":24},'
            '"completion_tokens_details":{"text_tokens":40}}'
        ),
        Tokens(prompt=1271, image=1247, completion=40),
    ),
    "deepseek": (
        (
            '{"prompt_tokens":16,"completion_tokens":10,"total_tokens":26,"prompt_tokens_details":{"cached_tokens":0},'
            '"completion_tokens_details":{"reasoning_tokens":4},"prompt_cache_hit_tokens":12,"prompt_cache_miss_tokens":4}'
        ),
        Tokens(prompt=16, cached=12, completion=10, reasoning=4),
    ),
    "qwen": (
        (
            '{"prompt_tokens":3019,"completion_tokens":104,"total_tokens":3123,'
            '"prompt_tokens_details":{"cached_tokens":2048,"text_tokens":3019},'
            '"completion_tokens_details":{"reasoning_tokens":88,"text_tokens":16}}'
        ),
        Tokens(prompt=3019, cached=2048, completion=104, reasoning=88),
    ),
    "moonshot": (
        '{"prompt_tokens":19,"completion_tokens":21,"total_tokens":40,"cached_tokens":10}',
        Tokens(prompt=19, cached=10, completion=21),
    ),
    "xai": (
        (
            '{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,'
            '"prompt_tokens_details":{"text_tokens":32,"audio_tokens":0,"image_tokens":0,"cached_tokens":6},'
            '"completion_tokens_details":{"reasoning_tokens":94,"audio_tokens":0,"accepted_prediction_tokens":0,'
            '"rejected_prediction_tokens":0},"num_sources_used":0}'
        ),
        Tokens(prompt=32, cached=6, completion=103, reasoning=94),
    ),
    "vllm": (
        '{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5,"prompt_tokens_details":null}',
        Tokens(prompt=7, completion=5),
    ),
    "nulls": (
        (
            '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":null},'
            '"completion_tokens_details":{"reasoning_tokens":null}}'
        ),
        Tokens(prompt=9, completion=3),
    ),
    "absurd": (
        (
            '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":900},'
            '"completion_tokens_details":{"reasoning_tokens":-1}}'
        ),
        Tokens(prompt=9, cached=9, completion=3),
    ),
    "absurd, together": (
        (
            '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":-7,'
            '"cache_write_tokens":4,"image_tokens":4,"text_tokens":99}}'
        ),
        Tokens(prompt=9, cached=4, cache_write=4, image=1, completion=3),
    ),
    "absurd, and it adds up": (
        (
            '{"prompt_tokens":9,"completion_tokens":3,"total_tokens":99999999999999999999,'
            '"completion_tokens_details":{"reasoning_tokens":99999999999999999987}}'
        ),
        Tokens(prompt=9, completion=3, reasoning=3),
    ),
}
"""Usages as providers send them as of 2026, and what the account takes from them."""


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_posted_of_each_provider_s_usage(name: str) -> None:
    said, tokens = GOLDEN[name]
    usage = usage_of(msgspec.json.decode(said, type=SaidUsage))
    assert usage is not None
    assert Tokens.of(usage) == tokens
    assert usage.total_tokens == tokens.prompt + tokens.completion


NEWER_TOLD = {
    "openai, a cache written and images": (
        {"text_tokens": 806, "image_tokens": 1200, "cache_write_tokens": 768},
        {"text_tokens": 300},
    ),
    "litellm": ({"cache_write_tokens": 32435}, {}),
    "databricks": ({"cache_write_tokens": 1500}, {}),
    "openai": ({}, {}),
    "vllm": ({}, {}),
    "xai": ({"text_tokens": 32, "image_tokens": 0}, {}),
    "absurd, together": ({"text_tokens": 9, "image_tokens": 4, "cache_write_tokens": 4}, {}),
}
NEWER = {"text_tokens", "image_tokens", "cache_write_tokens"}


@pytest.mark.parametrize("name", NEWER_TOLD)
def test_newer_counts_are_told_where_the_upstream_says_them(name: str) -> None:
    usage = msgspec.to_builtins(usage_of(msgspec.json.decode(GOLDEN[name][0], type=SaidUsage)))
    sides = (usage["prompt_tokens_details"], usage["completion_tokens_details"])
    assert tuple({key: side[key] for key in NEWER & set(side)} for side in sides) == NEWER_TOLD[name]


count = st.none() | st.integers(-100, 1000) | st.integers(-(10**30), 10**30)
price = st.integers(0, 10**12)


def any_of(struct: type[msgspec.Struct], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(struct, **(dict.fromkeys(struct.__struct_fields__, count) | fields))


any_usage = any_of(
    SaidUsage,
    prompt_tokens_details=st.none() | any_of(SaidPromptDetails),
    completion_tokens_details=st.none() | any_of(SaidCompletionDetails),
)
any_rates = st.builds(Rates, request=price, **dict.fromkeys(TokenRates.__struct_fields__, price))


@given(any_usage, any_rates)
def test_whatever_an_upstream_says_no_part_is_beyond_its_whole_and_no_cost_below_nothing(
    said: SaidUsage, rates: Rates
) -> None:
    usage = usage_of(said)
    if usage is None:
        return
    for whole, details in (
        (usage.prompt_tokens, usage.prompt_tokens_details),
        (usage.completion_tokens, usage.completion_tokens_details),
    ):
        assert all(0 <= part <= whole <= 2 * MOST_TOKENS for part in msgspec.to_builtins(details).values())
    tokens = Tokens.of(usage)
    each_prompt, each_output, request = most(rates)
    assert (
        request <= cost_pico(rates, tokens) <= tokens.prompt * each_prompt + tokens.completion * each_output + request
    )
