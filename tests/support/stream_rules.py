"""The rules of a streamed answer (contract.md §10), checked on plain JSON and independent of the program.

`read_stream` takes the bytes of a whole event stream apart and holds its framing; `check_stream` holds its chunks to
every invariant; `joined` puts the deltas together, and `check_same_answer` compares them with the reply of a request
that did not stream. Both checks raise AssertionError with a sentence.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Frame = Mapping[str, Any]

FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}
SAME_IN_ALL = ("id", "object", "created", "model", "system_fingerprint")
SAYS_SOMETHING = ("content", "refusal", "reasoning_content", "tool_calls", "function_call", "audio", "annotations")


def read_stream(raw: bytes) -> list[dict[str, Any]]:
    """The chunks of a whole stream. Comments may stand anywhere, `[DONE]` is the last frame, nothing follows (13)."""
    assert raw.endswith(b"data: [DONE]\n\n"), f"the stream does not end with [DONE]: {raw[-80:]!r}"
    events = [event for event in raw.decode("utf-8").split("\n\n")[:-1] if not event.startswith(":")]
    assert events.count("data: [DONE]") == 1, "more than one [DONE]"
    for event in events:
        assert event.startswith("data: "), f"not a data frame: {event[:80]!r}"
        assert "\n" not in event, f"a frame of several lines: {event[:80]!r}"
        assert "\r" not in event, f"a raw CR in a frame: {event[:80]!r}"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


def check_stream(
    frames: Sequence[Frame],
    *,
    choices: int = 1,
    include_usage: bool = False,
    logprobs: bool | None = None,
    stop: Sequence[str] = (),
    empty: bool = False,
    garbled: bool = False,
) -> None:
    """All invariants of one answer's chunks, in order, without `[DONE]`.

    logprobs: whether they were asked for; None: not checked. empty: the request had `max_tokens: 0` (15). garbled: the
    model rolled dice, and may itself have said bytes that are no character; there U+FFFD is the truth.
    """
    assert frames, "a stream without chunks"
    _check_same(frames)
    _check_usage(frames, include_usage=include_usage)
    per_index = defaultdict(list)
    for frame in frames:
        assert len(frame["choices"]) <= 1, "several choices in one chunk"
        for choice in frame["choices"]:
            per_index[choice["index"]].append(choice)
    assert sorted(per_index) == list(range(choices)), f"choices {sorted(per_index)} of {choices}"
    for said in per_index.values():
        _check_choice(said)
        _check_tool_calls(said)
        _check_function_call(said)
        if empty:
            assert [choice["finish_reason"] for choice in said] == [None, "length"], "max_tokens 0 must say nothing"
    for choice in joined(frames):
        _check_joined(choice, logprobs=logprobs, stop=stop, garbled=garbled)


def _check_same(frames: Sequence[Frame]) -> None:
    """1: the envelope."""
    for frame in frames:
        assert frame["object"] == "chat.completion.chunk"
        assert isinstance(frame["created"], int)
        assert isinstance(frame["choices"], list)
        for key in ("id", "model", "system_fingerprint"):
            assert isinstance(frame[key], str), f"{key} is {frame.get(key)!r}"
            assert frame[key], f"{key} is empty"
        for key in SAME_IN_ALL:
            assert frame[key] == frames[0][key], f"{key} changed within a stream"


def _check_usage(frames: Sequence[Frame], *, include_usage: bool) -> None:
    """8: usage is null everywhere and once at the end, or nowhere."""
    body = frames[:-1] if include_usage else frames
    assert all(frame["choices"] for frame in body), "a chunk with empty choices"
    if not include_usage:
        assert not any("usage" in frame for frame in frames), "usage was not asked for"
        return
    assert all("usage" in frame and frame["usage"] is None for frame in body), "usage must be null before the end"
    last = frames[-1]
    assert last["choices"] == [], "the usage chunk has choices"
    usage = last["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert min(usage["prompt_tokens"], usage["completion_tokens"]) >= 0


def _check_choice(said: Sequence[Frame]) -> None:
    """2, 3, 3b, 4: keys, role, reasoning first, one end."""
    for choice in said:
        assert {"index", "delta", "finish_reason", "logprobs"} <= choice.keys(), f"keys {sorted(choice)}"
        assert isinstance(choice["delta"], dict)
    first, *later = said
    assert first["delta"]["role"] == "assistant"
    assert "content" in first["delta"]
    assert not any("role" in choice["delta"] for choice in later), "the role is repeated"
    ends = [position for position, choice in enumerate(said) if choice["finish_reason"] is not None]
    assert ends == [len(said) - 1], f"finish_reason at {ends} of {len(said)} chunks"
    assert said[-1]["finish_reason"] in FINISH_REASONS
    assert said[-1]["delta"] == {}, "the finish chunk says something"
    for choice in later[:-1]:
        assert any(key in choice["delta"] for key in SAYS_SOMETHING), f"an empty delta: {choice}"
    kinds = [key for choice in later for key in SAYS_SOMETHING if key in choice["delta"]]
    expected = None if kinds and kinds[0] != "content" else ""
    assert first["delta"]["content"] == expected, f"the role chunk's content before {kinds}"
    answer = [kind != "reasoning_content" for kind in kinds if kind != "annotations"]
    assert answer == sorted(answer), "reasoning after the answer has begun"


def _check_tool_calls(said: Sequence[Frame]) -> None:
    """7: the head once and first, then text; indexes from 0 without gaps; ids unique."""
    heads: dict[int, Frame] = {}
    for choice in said:
        for call in choice["delta"].get("tool_calls", ()):
            if call["index"] not in heads:
                assert call["index"] == len(heads), f"call {call['index']} came after {len(heads)} calls"
                _check_head(call)
                heads[call["index"]] = call
                continue
            kind = heads[call["index"]]["type"]
            assert call.keys() == {"index", kind}, f"a later delta of a call has {sorted(call)}"
            assert call[kind].keys() == {"input" if kind == "custom" else "arguments"}
    ids = [call["id"] for call in heads.values()]
    assert len(set(ids)) == len(ids), f"ids repeat: {ids}"


def _check_head(call: Frame) -> None:
    assert call.keys() == {"index", "id", "type", call["type"]}, f"a call's first delta has {sorted(call)}"
    assert isinstance(call["id"], str)
    assert call["id"], "a call without id"
    body = call[call["type"]]
    assert body["name"], "a call without name"
    assert body == {"name": body["name"], "input" if call["type"] == "custom" else "arguments": ""}


def _check_function_call(said: Sequence[Frame]) -> None:
    pieces = [choice["delta"]["function_call"] for choice in said if "function_call" in choice["delta"]]
    for position, piece in enumerate(pieces):
        assert piece.keys() == ({"arguments"} if position else {"name", "arguments"})
    assert not pieces or (pieces[0]["name"] and pieces[0]["arguments"] == "")


def _check_joined(choice: Frame, *, logprobs: bool | None, stop: Sequence[str], garbled: bool) -> None:
    """9, 14: logprobs joined are the text; no stop sequence, no broken character in it."""
    text = choice["message"]["content"] or ""
    assert not any(sequence in text for sequence in stop), f"a stop sequence leaked into {text!r}"
    assert garbled or "\ufffd" not in text, f"a broken character in {text!r}"
    if logprobs is False:
        assert choice["logprobs"] is None, "logprobs were not asked for"
    if logprobs and text:
        assert choice["logprobs"] is not None, "logprobs were asked for"
        items = choice["logprobs"]["content"]
        assert b"".join(bytes(item["bytes"]) for item in items) == text.encode(), "logprobs do not join to the text"
        assert all(item["logprob"] <= 0 for item in items)


def joined(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """The choices in the shape of a reply that did not stream: index, message, logprobs, finish_reason."""
    choices: dict[int, dict[str, Any]] = {}
    for frame in frames:
        for said in frame["choices"]:
            choice = choices.setdefault(said["index"], {"index": said["index"], "message": {}, "logprobs": None})
            _join_message(choice["message"], said["delta"])
            for key, items in (said["logprobs"] or {}).items():
                target = choice["logprobs"] = choice["logprobs"] or {"content": None, "refusal": None}
                target[key] = target[key] if items is None else (target[key] or []) + items
            choice["finish_reason"] = said["finish_reason"]
    return [choices[index] for index in sorted(choices)]


def _join_message(message: dict[str, Any], delta: Frame) -> None:
    message.setdefault("content", None)
    for key in ("content", "refusal", "reasoning_content"):
        if delta.get(key) is not None:
            message[key] = (message.get(key) or "") + delta[key]
    for piece in delta.get("tool_calls", ()):
        calls = message.setdefault("tool_calls", [])
        if piece["index"] == len(calls):
            calls.append({"id": piece["id"], "type": piece["type"], piece["type"]: dict(piece[piece["type"]])})
        else:
            _append(calls[piece["index"]][calls[piece["index"]]["type"]], piece[calls[piece["index"]]["type"]])
    if "annotations" in delta:
        assert delta["annotations"], "no annotation in a list of them"
        message["annotations"] = message.get("annotations", []) + delta["annotations"]
    if "audio" in delta:
        _join_audio(message.setdefault("audio", {"data": "", "transcript": ""}), delta["audio"])
    if "function_call" in delta:
        if "function_call" in message:
            _append(message["function_call"], delta["function_call"])
        else:
            message["function_call"] = dict(delta["function_call"])


def _join_audio(audio: dict[str, Any], piece: Frame) -> None:
    assert piece, "a piece of audio without anything"
    audio |= {key: piece[key] for key in ("id", "expires_at") if key in piece}
    audio["transcript"] += piece.get("transcript", "")
    sound = b64decode(audio["data"]) + b64decode(piece.get("data", ""))
    audio["data"] = b64encode(sound).decode()


def _append(body: dict[str, Any], piece: Frame) -> None:
    for key, text in piece.items():
        body[key] += text


def check_same_answer(frames: Sequence[Frame], completion: Frame) -> None:
    """5: the joined deltas are what the reply holds that did not stream; the ids of calls may differ."""
    streamed = joined(frames)
    assert len(streamed) == len(completion["choices"])
    for ours, whole in zip(streamed, completion["choices"], strict=True):
        message = whole["message"]
        for key in ("content", "refusal", "reasoning_content", "function_call"):
            assert ours["message"].get(key) == message.get(key), f"{key}: {ours['message']} against {message}"
        assert ours["message"].get("annotations", []) == message.get("annotations", [])
        assert ours["message"].get("audio") == message.get("audio")
        calls = [_without_id(call) for call in ours["message"].get("tool_calls", ())]
        assert calls == [_without_id(call) for call in message.get("tool_calls", ())]
        assert ours["finish_reason"] == whole["finish_reason"]
        assert ours["logprobs"] == whole["logprobs"]


def _without_id(call: Frame) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key != "id"}
