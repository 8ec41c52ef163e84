"""What a user of an official SDK gets of ten providers: through Chatport the same as without it.

Each case is asked for twice over real sockets, straight from a server that replays the provider's bytes, and through a
Chatport whose target that server is. What differs is what the contract demands: ids, times and the model's name
everywhere, and what `DIFFERS` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support.canned import CannedServer, canned, reply
from support.javascript import run_script
from support.recorded import CASES, FAILURES
from support.serving import Server, serving

MESSAGES: Any = [{"role": "user", "content": "hi"}]
CLOSE = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: "

WAYS = [(name, way) for name in CASES for way in ("stream", "whole")]
REFUSED = [(f"{name}.error", way) for name in FAILURES for way in ("stream", "whole")]

Got = dict[str, Any]

TO_REASONING_CONTENT = {"reasoning": ({"reasoning": "hm"}, {"reasoning_content": "hm"})}
NULL_BESIDE_CALLS = {"whole.content": ("", None)}
MOONSHOT_USAGE = {"stream.usage": (None, (9, 3, 12)), "cached": (0, 6)}
TEXT_PART = {"type": "text", "text": "Hi"}
THOUGHT_PART = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}

DIFFERS: dict[str, dict[str, tuple[Any, Any]]] = {
    # §9, §10: a finish_reason is one of five
    "zhipu.text": {"finish": ("sensitive", "content_filter")},
    # §9: content is a text; thoughts are reasoning_content
    "mistral.text": {
        "finish": ("model_length", "length"),
        "content": ([THOUGHT_PART, TEXT_PART], "Hi"),
        "reasoning": ({}, {"reasoning_content": "hm"}),
    },
    "groq.text": TO_REASONING_CONTENT,
    "openrouter.text": TO_REASONING_CONTENT,
    "ollama.text": TO_REASONING_CONTENT,
    # §6: content is null when there is no text
    "deepseek.tools": {**NULL_BESIDE_CALLS, "cached": (0, 8)},
    "mistral.tools": NULL_BESIDE_CALLS,
    "openrouter.tools": NULL_BESIDE_CALLS,
    # §6: arguments are a string of JSON
    "ollama.tools": {**NULL_BESIDE_CALLS, "calls": ([("f", {"a": 1})], [("f", '{"a":1}')])},
    # §9, §10.8: usage is the reply's, or in the stream's last chunk; what was cached is in its details
    "moonshot.text": MOONSHOT_USAGE,
    "moonshot.tools": {**NULL_BESIDE_CALLS, **MOONSHOT_USAGE},
    # §12: the operator's account, key and model are not the client's; there is no 422
    "deepseek.error": {"error": (("APIStatusError", 402), ("InternalServerError", 503))},
    "mistral.error": {"error": (("UnprocessableEntityError", 422), ("BadRequestError", 400))},
    "ollama.error": {"error": (("NotFoundError", 404), ("InternalServerError", 500))},
}
"""By case: what a user gets directly, and through Chatport. `stream.` and `whole.`: only so."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[CannedServer]:
    """Replays each case under a path of its own: /CASE/stream, /CASE/whole."""
    replies: dict[str, bytes] = {}
    for name, case in CASES.items():
        replies[f"/{name}/stream"] = CLOSE + b"text/event-stream; charset=utf-8\r\n\r\n" + case.stream
        replies[f"/{name}/whole"] = CLOSE + b"application/json\r\n\r\n" + case.whole
    for name, failure in FAILURES.items():
        refused = reply(failure.body, f"{failure.status}\r\nconnection: close")
        replies |= {f"/{name}.error/{way}": refused for way in ("stream", "whole")}
    with canned({f"{path}/chat/completions": data for path, data in replies.items()}) as server:
        yield server


@pytest.fixture(scope="module")
def through(upstream: CannedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Chatport with a model for each case, called as its path, behind the provider's own row."""
    config = "".join(
        f"""
[[models]]
id = "{name}/{way}"
attempts = 1
[[models.targets]]
provider = "{name.partition(".")[0]}"
base_url = "{upstream.url}/{name}/{way}"
api_key = "upstreams-own-key"
"""
        for name, way in WAYS + REFUSED
    )
    with serving(tmp_path_factory.mktemp("through"), config) as server:
        yield server


def client(base_url: str, key: str) -> openai.OpenAI:
    direct = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, http_client=direct)


@pytest.mark.parametrize(("name", "way"), WAYS + REFUSED)
def test_the_python_sdk_gets_the_same(upstream: CannedServer, through: Server, name: str, way: str) -> None:
    with client(f"{upstream.url}/{name}/{way}", "k") as alone, client(f"{through.url}/v1", through.key) as ours:
        without, with_ = ask(alone, "far", way), ask(ours, f"{name}/{way}", way)
    compare(name, way, without, with_)


def test_the_javascript_sdk_gets_the_same(upstream: CannedServer, through: Server) -> None:
    cases = json.dumps([{"name": name, "way": way} for name, way in WAYS + REFUSED])
    told = run_script("providers.mjs", through, UPSTREAM_URL=upstream.url, CASES=cases)
    answers = json.loads(told)
    assert [(each["name"], each["way"]) for each in answers] == WAYS + REFUSED
    for each in answers:
        compare(each["name"], each["way"], each["without"], each["with"])


def ask(sdk: openai.OpenAI, model: str, way: str) -> Got:
    """The objects that the SDK gives, as JSON: of a stream, a reply, or an error."""
    try:
        if way == "whole":
            completion = sdk.chat.completions.create(model=model, messages=MESSAGES)
            return {"objects": [completion.model_dump(mode="json", exclude_unset=True, warnings=False)]}
        stream = sdk.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        return {"objects": [chunk.model_dump(mode="json", exclude_unset=True, warnings=False) for chunk in stream]}
    except openai.APIStatusError as error:
        return {"error": [type(error).__name__, error.status_code]}


def compare(name: str, way: str, without: Got, with_: Got) -> None:
    """The two are the same, but for what `DIFFERS` says, which they must differ in."""
    directly, ours = user_gets(without, way), user_gets(with_, way)
    for field, (there, here) in DIFFERS.get(name, {}).items():
        only, _, key = field.rpartition(".")
        if only in ("", way):
            assert (directly.pop(key), ours.pop(key)) == (there, here), key
    assert ours == directly
    for said in with_.get("objects", ()):
        assert said["id"].startswith("chatcmpl-")
        assert (said["model"], said["created"] > 1) == (f"{name}/{way}", True)


def user_gets(told: Got, way: str) -> Got:
    """What a user reads of it, joined as users join it."""
    if "error" in told:
        return {"error": tuple(told["error"])}
    choices = [choice for said in told["objects"] for choice in said["choices"]]
    pieces = [choice["delta" if way == "stream" else "message"] for choice in choices]
    usage = next((said["usage"] for said in reversed(told["objects"]) if said.get("usage")), None)
    items = [item for choice in choices for item in (choice.get("logprobs") or {}).get("content") or ()]
    return {
        "content": joined_content([piece.get("content") for piece in pieces], way),
        "reasoning": {
            name: text
            for name in ("reasoning", "reasoning_content")
            if (text := "".join(piece.get(name) or "" for piece in pieces))
        },
        "calls": joined_calls([call for piece in pieces for call in piece.get("tool_calls") or ()], way),
        "finish": next(reason for choice in reversed(choices) if (reason := choice.get("finish_reason"))),
        "audio": joined_audio([piece["audio"] for piece in pieces if piece.get("audio")]),
        "annotations": [each for piece in pieces for each in piece.get("annotations") or ()],
        "logprobs": items,
        "usage": usage and tuple(usage[f"{kind}_tokens"] for kind in ("prompt", "completion", "total")),
        "cached": detail(usage, "prompt", "cached"),
        "thought": detail(usage, "completion", "reasoning"),
    }


def detail(usage: Got | None, kind: str, name: str) -> int:
    return ((usage or {}).get(f"{kind}_tokens_details") or {}).get(f"{name}_tokens") or 0


def joined_content(pieces: list[Any], way: str) -> Any:
    """A text; where parts came, all of them in a list. A stream without content is an empty text."""
    if any(isinstance(piece, list) for piece in pieces):
        return [part for piece in pieces if isinstance(piece, list) for part in piece]
    return pieces[0] if way == "whole" else "".join(piece or "" for piece in pieces)


def joined_calls(pieces: list[Got], way: str) -> list[tuple[str, Any]]:
    if way == "whole":
        return [(call["function"]["name"], call["function"]["arguments"]) for call in pieces]
    calls: dict[int, tuple[str, Any]] = {}
    for piece in pieces:
        name, text = piece["function"].get("name") or "", piece["function"].get("arguments") or ""
        before = calls.get(piece.get("index") or 0)
        calls[piece.get("index") or 0] = (name, text) if before is None else (before[0] + name, before[1] + text)
    return list(calls.values())


def joined_audio(pieces: list[Got]) -> Got:
    """As OpenAI's own client code does: texts follow each other, the rest is the last."""
    audio: Got = {}
    for piece in pieces:
        for key, value in piece.items():
            audio[key] = audio.get(key, "") + value if key in ("data", "transcript") else value
    return audio
