"""What other servers say, right and wrong, over a real socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from chatport.cli.chat import transport
from chatport.cli.chat.access import GivenKey
from chatport.cli.chat.answers import Event, Server
from chatport.cli.chat.errors import AnswerBroken, ChatError, KeyRefused, NoServer, RequestRefused, UnknownModel
from chatport.cli.chat.request import Settings, request_for
from chatport.cli.chat.transport import Transport
from chatport.wire.chat import UserMessage
from support.canned import canned, delta, reply, stream

KEY = "sk-test-0123456789"
MODELS = {"/v1/models": reply({"data": [{"id": "a"}, {"id": "b/c:1"}]})}
CREATE = "/v1/chat/completions"
FINISH = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def server_at(url: str) -> Server:
    return Server(Transport(f"{url}/v1"), GivenKey(KEY, "OPENAI_API_KEY"))


def answer(server: Server, settings: Settings | None = None) -> list[Event]:
    return list(server.answer(request_for("a", [UserMessage(content="Hi")], settings or Settings())))


def answered(sent: bytes) -> list[Event]:
    with canned({CREATE: sent}) as other:
        return answer(server_at(other.url))


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events)


def test_a_stream_and_the_request_for_it() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None}}
    sent = stream(
        delta(role="assistant", content=""), delta(content="He"), delta(content="llo"), FINISH, usage, "[DONE]"
    )
    with canned({CREATE: sent}) as other:
        events = answer(server_at(other.url), Settings(temperature=0.5, max_tokens=9))
        (received,) = other.received
    assert text(events) == "Hello"
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == 2
    assert (received.line, received.authorization) == (f"POST {CREATE}", f"Bearer {KEY}")
    assert json.loads(received.body) == {
        "model": "a",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "max_completion_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_told_from_the_answer(name: str) -> None:
    events = answered(stream(delta(**{name: "hm"}), delta(content="yes"), FINISH, "[DONE]"))
    assert ("".join(event.reasoning for event in events), text(events)) == ("hm", "yes")


def test_a_whole_reply_where_no_stream_came() -> None:
    message = {"role": "assistant", "content": None, "refusal": "No."}
    events = answered(reply({"choices": [{"message": message, "finish_reason": "stop"}]}))
    assert [event.text for event in events] == ["No."]


def test_a_stream_may_end_without_done() -> None:
    assert text(answered(stream(delta(content="all"), FINISH))) == "all"


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (stream(delta(content="a"), {"error": {"message": "Out of memory.", "code": None}}), "Out of memory."),
        (stream(delta(content="a"), {"error": "gone"}), "gone"),
        (stream(delta(content="a"), cut=True), "The connection broke before the answer ended."),
        (stream(delta(content="a")), "The connection ended before the answer did."),
        (stream(delta(content="a"), "{]"), "The server sent something that is no part of an answer."),
        (stream(delta(content="a"), "x" * 1_100_000), "more than 1048576 bytes"),
    ],
    ids=["error frame", "error text", "cut", "no end", "no JSON", "endless frame"],
)
def test_a_stream_that_breaks_gives_what_came_before(sent: bytes, sentence: str) -> None:
    with canned({CREATE: sent}) as other:
        events = server_at(other.url).answer(request_for("a", [], Settings()))
        assert next(events).text == "a"
        with pytest.raises(AnswerBroken, match=sentence):
            next(events)


@pytest.mark.parametrize(
    ("sent", "error", "sentence"),
    [
        (reply({"error": {"message": "Slow down."}}, "429 Too Many Requests"), RequestRefused, "Slow down."),
        (reply("<html>", "502 Bad Gateway"), RequestRefused, "answers with HTTP status 502"),
        (
            reply({"error": {"message": "Bad key."}}, "401 Unauthorized"),
            KeyRefused,
            "Bad key. It came from OPENAI_API_KEY",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", NoServer, "No answer from"),
        (b"", NoServer, "No answer from"),
        (b"HTTP/1.1 302 Found\r\nlocation: /v1/other\r\ncontent-length: 0\r\n\r\n", RequestRefused, "HTTP status 302"),
    ],
    ids=["error object", "no error object", "key", "no HTTP", "nothing", "redirect"],
)
def test_a_refusal(sent: bytes, error: type[ChatError], sentence: str) -> None:
    with canned({CREATE: sent, "/v1/other": reply({})}) as other:
        with pytest.raises(error, match=sentence):
            answer(server_at(other.url))
        assert len(other.received) == 1, "the key must not follow a redirect"


def test_nobody_there() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(NoServer, match="Connection refused"):
            server_at(f"http://127.0.0.1:{sock.getsockname()[1]}").models()


def test_a_host_that_can_not_be_one() -> None:
    with pytest.raises(NoServer, match="label"):
        server_at(f"http://{'a' * 80}.invalid").models()


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NoServer, match="it took too long"):
        Transport(f"http://127.0.0.1:{silent.getsockname()[1]}").get("/", None)


def test_a_reply_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_REPLY", 10)
    with canned(MODELS) as other, pytest.raises(NoServer, match="more than 10 bytes"):
        server_at(other.url).models()


def test_the_model_is_the_one_asked_for_or_the_first() -> None:
    with canned(MODELS) as other:
        server = server_at(other.url)
        assert (server.model(None), server.model("b/c:1")) == ("a", "b/c:1")
        assert server.known == ["a", "b/c:1"]
        with pytest.raises(UnknownModel, match=r"There is no model 'x' at .*/v1. It has: a, b/c:1\."):
            server.model("x")


@pytest.mark.parametrize(
    ("replies", "wanted", "error", "sentence"),
    [
        ({}, None, RequestRefused, "No such path."),
        ({"/v1/models": reply({"data": []})}, None, UnknownModel, "lists no models"),
        ({"/v1/models": reply({"data": {}})}, "a", NoServer, "does not speak the Chat Completions API"),
    ],
)
def test_no_list_of_models(
    replies: Mapping[str, bytes], wanted: str | None, error: type[ChatError], sentence: str
) -> None:
    with canned(replies) as other, pytest.raises(error, match=sentence):
        server_at(other.url).model(wanted)


def test_a_server_that_lists_nothing_is_asked_for_the_model_all_the_same() -> None:
    with canned({}) as other:
        assert server_at(other.url).model("any") == "any"


@pytest.mark.parametrize(("direct", "through"), [(False, True), (True, False)])
def test_a_proxy_is_used_unless_the_server_is_here(
    monkeypatch: pytest.MonkeyPatch, direct: bool, through: bool
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    listing: dict[str, Any] = {"data": [{"id": "by proxy"}]}
    with canned({"http://models.invalid/v1/models": reply(listing)} | MODELS) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        away = Server(Transport("http://models.invalid/v1", direct=direct), GivenKey(None, None))
        if through:
            assert away.models() == ["by proxy"]
        else:
            with pytest.raises(NoServer):
                away.models()
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert server_at(proxy.url).models() == ["a", "b/c:1"]
