"""Asks a server over plain HTTP, and looks at every reply as the contract does before the test does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx2

from support.published import check
from support.serving import Server
from support.stream_rules import check_stream, joined, read_stream

CREATE = "/v1/chat/completions"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "one two three four five"}]

REPLY_KEYS = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"}
CHOICE_KEYS = {"index", "message", "logprobs", "finish_reason"}
MESSAGE_KEYS = {"role", "content", "refusal", "annotations"}
OPTIONAL_MESSAGE_KEYS = {"reasoning_content", "tool_calls", "function_call", "audio"}


class Refusal(NamedTuple):
    """An error reply, its object's four keys in the order of contract.md §12 behind the status."""

    status: int
    type: str
    code: str | None
    param: str | None
    message: str


class Streamed(NamedTuple):
    """A stream that kept the rules: its head, and its frames without `[DONE]`."""

    headers: Mapping[str, str]
    frames: list[dict[str, Any]]

    @property
    def choices(self) -> list[dict[str, Any]]:
        """Index, message, logprobs and finish_reason of each choice, its deltas joined."""
        return joined(self.frames)

    @property
    def content(self) -> str:
        return self.choices[0]["message"]["content"] or ""

    @property
    def usage(self) -> dict[str, Any] | None:
        return self.frames[-1].get("usage")


def request_body(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A small valid request with these fields put in; one given as `...` is left out."""
    whole = {"model": "echo", "messages": HELLO, **fields}
    return {name: value for name, value in whole.items() if value is not ...}


def refusal(response: httpx2.Response) -> Refusal:
    """The error of a reply, which must have the form that §11 and §12 ask of every error."""
    assert response.status_code >= 400, response.text[:500]
    assert response.headers["content-type"].split(";")[0] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "Traceback" not in error["message"]
    assert len(error["message"]) < 2000
    return Refusal(response.status_code, error["type"], error["code"], error["param"], error["message"])


def check_completion(reply: dict[str, Any], choices: int = 1) -> None:
    """Every rule of §9 that holds whatever was asked."""
    check("CreateChatCompletionResponse", reply)
    assert set(reply) - {"metadata"} == REPLY_KEYS
    assert reply["id"].startswith("chatcmpl-")
    assert reply["system_fingerprint"].startswith("fp_")
    assert [choice["index"] for choice in reply["choices"]] == list(range(choices))
    for choice in reply["choices"]:
        assert set(choice) == CHOICE_KEYS
        assert set(choice["message"]) - OPTIONAL_MESSAGE_KEYS == MESSAGE_KEYS
        assert choice["message"].get("tool_calls") != []
    usage = reply["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert {"cached_tokens", "audio_tokens"} <= set(usage["prompt_tokens_details"])
    details = {"reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"}
    assert details <= set(usage["completion_tokens_details"])


def streams_custom_call(frame: Mapping[str, Any]) -> bool:
    """Whether a frame carries a piece of a custom call: neither the description nor the SDK knows those in a stream."""
    calls = [call for choice in frame["choices"] for call in choice["delta"].get("tool_calls", ())]
    return any("custom" in call for call in calls)


class Api:
    """One key on one server."""

    def __init__(self, server: Server, key: str | None = None) -> None:
        authorization = {"authorization": f"Bearer {key or server.key}"}
        self.server = server
        self.http = httpx2.Client(base_url=server.url, headers=authorization, trust_env=False, timeout=100)

    def close(self) -> None:
        self.http.close()

    def post(self, fields: Mapping[str, Any], **headers: str) -> httpx2.Response:
        """POST of `request_body(fields)`; header names are written with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(CREATE, json=request_body(fields), headers=named)

    def completion(self, **fields: Any) -> dict[str, Any]:
        """A whole answer, looked at."""
        response = self.post(fields)
        assert response.status_code == 200, response.text[:1000]
        assert response.headers["content-type"].split(";")[0] == "application/json"
        reply: dict[str, Any] = response.json()
        check_completion(reply, fields.get("n") or 1)
        return reply

    def text(self, **fields: Any) -> str:
        content = self.completion(**fields)["choices"][0]["message"]["content"]
        assert isinstance(content, str)
        return content

    def stream(self, **fields: Any) -> Streamed:
        """A whole stream, looked at."""
        response = self.post({**fields, "stream": True})
        assert response.status_code == 200, response.text[:1000]
        assert response.headers["content-type"].split(";")[0] == "text/event-stream"
        frames = read_stream(response.content)
        for frame in frames:
            if not streams_custom_call(frame):
                check("CreateChatCompletionStreamResponse", frame)
        check_stream(
            frames,
            choices=fields.get("n") or 1,
            include_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
            logprobs=bool(fields.get("logprobs")),
            empty=fields.get("max_tokens") == 0,
        )
        return Streamed(response.headers, frames)

    def refusal(self, **fields: Any) -> Refusal:
        return refusal(self.post(fields))


def joined_logprobs(items: Sequence[Mapping[str, Any]]) -> str:
    """The text that logprobs items add up to, byte for byte."""
    return b"".join(bytes(item["bytes"]) for item in items).decode("utf-8")
