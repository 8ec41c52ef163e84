"""Paths, methods, keys, bodies, errors: what the application answers, in the contract's order (§2, §3, §11, §12)."""

from __future__ import annotations

import json
import logging
import tracemalloc

import pytest

from chatport.telemetry import Access
from chatport.web.app import ROUTES, WebSettings, create_app
from chatport.web.exchange import Exchange
from chatport.web.turn import Turn
from support.memory_port import MemoryPort
from support.raw_http import Reply, request
from support.site import FakeServices, chat_body

CREATE = "/v1/chat/completions"


async def one(port: MemoryPort, sent: bytes, method: str = "") -> Reply:
    (reply,) = await port.exchange(sent, methods=(method,))
    return reply


async def test_create_hands_the_request_to_the_pipeline(port: MemoryPort, services: FakeServices) -> None:
    body = chat_body()
    reply = await one(port, request(body=body, headers=[("Idempotency-Key", "once")]))
    assert (reply.status, reply.body) == (200, body)
    (call,) = services.answers.calls
    assert (call.caller.key_id, call.request.model, call.body) == ("key_alice", "echo", body)
    assert call.idempotency_key == "once"
    assert reply.headers["x-request-id"] == call.id
    assert reply.headers["content-length"] == str(len(reply.body))


@pytest.mark.parametrize(
    ("sent", "status", "code", "param"),
    [
        pytest.param(request(target="/v1/nothing", key=None), 404, "not_found", None, id="path before key"),
        pytest.param(request("PUT", key=None), 405, "method_not_supported", None, id="method before key"),
        pytest.param(
            request(body=b"x" * 9000, key=None, content_type="text/plain"), 401, "invalid_api_key", "authorization",
            id="key before content type and size",
        ),
        pytest.param(request(key="sk-bad"), 401, "invalid_api_key", "authorization", id="wrong key"),
        pytest.param(
            request(body=b"x" * 9000, content_type="text/plain"), 400, "unsupported_content_type", None,
            id="content type before size",
        ),
        pytest.param(request(body=b"{" * 9000), 413, "request_too_large", None, id="size before JSON"),
        pytest.param(request(body=b"{"), 400, None, None, id="JSON"),
        pytest.param(request(body=b""), 400, None, None, id="no body"),
        pytest.param(
            request(body=b'{"model":"echo"}'), 400, "missing_required_parameter", "messages", id="fields"
        ),
        pytest.param(request(body=chat_body("busy")), 503, "service_unavailable", None, id="the pipeline's refusal"),
    ],
)  # fmt: skip
async def test_the_first_check_that_fails_answers(
    port: MemoryPort, sent: bytes, status: int, code: str | None, param: str | None
) -> None:
    reply = await one(port, sent)
    assert reply.status == status
    assert (reply.error["code"], reply.error["param"]) == (code, param)


async def test_what_an_error_says_in_its_head(port: MemoryPort) -> None:
    refused = await one(port, request("PUT"))
    assert refused.headers["allow"] == "POST, GET"
    replies = await port.exchange(request(key=None), request(body=chat_body("busy")))
    assert replies[1].headers["www-authenticate"] == "Bearer"
    assert (replies[2].headers["retry-after"], replies[2].headers["retry-after-ms"]) == ("3", "2500")
    for created in replies[1:]:
        assert created.headers["openai-version"] == "2020-10-01"
        assert created.headers["openai-processing-ms"].isdigit()
    assert "openai-version" not in refused.headers


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/json;"])
async def test_json_under_any_spelling(port: MemoryPort, content_type: str) -> None:
    assert (await one(port, request(body=chat_body(), content_type=content_type))).status == 200


@pytest.mark.parametrize(
    ("content_type", "said"),
    [
        (None, "none"),
        ("", '""'),
        ("text/json", "text/json"),
        ("application/jsonx", "jsonx"),
        ("text/plain; a=b", "a=b"),
    ],
)
async def test_any_other_content_type_is_refused_by_name(port: MemoryPort, content_type: str | None, said: str) -> None:
    reply = await one(port, request(body=chat_body(), content_type=content_type))
    assert (reply.status, reply.error["code"]) == (400, "unsupported_content_type")
    assert said in reply.error["message"]


async def test_a_compressed_body_is_refused_by_name(port: MemoryPort) -> None:
    reply = await one(port, request(body=b"\x1f\x8b", headers=[("Content-Encoding", "gzip")]))
    assert reply.status == 400
    assert "gzip" in reply.error["message"]


UNTIDY = "//v1/models /v1/models/ /v1 /v1/ /v1/chat /v1/../v1/models /%zz /v1/%ff%00 /v1/chat/completions/ /V1/models"


@pytest.mark.parametrize("target", UNTIDY.split())
async def test_paths_are_not_tidied_up(port: MemoryPort, target: str) -> None:
    reply = await one(port, request("GET", target))
    assert (reply.status, reply.error["type"], reply.error["code"]) == (404, "not_found", "not_found")


@pytest.mark.parametrize(
    ("target", "meant"),
    [("/chat/completions", "/v1/chat/completions"), ("/v1/v1/models", "/v1/models"), ("/v1/models/", "/v1/models")],
)
async def test_a_wrong_base_url_gets_a_hint(port: MemoryPort, target: str, meant: str) -> None:
    assert f"Did you mean {meant}?" in (await one(port, request("GET", target))).error["message"]


@pytest.mark.parametrize("target", ["/v1/models?after=x", "http://elsewhere:1/v1/models?x#y", "/v1/%6dodels"])
async def test_other_spellings_of_a_path(port: MemoryPort, target: str) -> None:
    reply = await one(port, request("GET", target))
    assert [model["id"] for model in reply.json["data"]] == ["echo", "gpt-4", "library/poem:1"]


@pytest.mark.parametrize("name", ["library%2Fpoem%3A1", "library/poem:1", "library%2fpoem:1"])
async def test_a_models_name_may_hold_slashes(port: MemoryPort, name: str) -> None:
    reply = await one(port, request("GET", f"/v1/models/{name}"))
    assert (reply.json["id"], reply.json["object"]) == ("library/poem:1", "model")


async def test_an_unknown_model(port: MemoryPort) -> None:
    reply = await one(port, request("GET", "/v1/models/%22%0a"))
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")


async def test_a_repeated_key_is_no_key(port: MemoryPort) -> None:
    reply = await one(port, request("GET", "/v1/models", headers=[("Authorization", "Bearer sk-good")]))
    assert reply.status == 401


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json"])
async def test_open_pages(port: MemoryPort, path: str) -> None:
    page, head = await port.exchange(
        request("GET", path, key=None), request("HEAD", path, key=None), methods=("GET", "HEAD")
    )
    assert page.status == head.status == 200
    assert head.headers["content-length"] == str(len(page.body))
    refused = await port.exchange(request("DELETE", path, key=None), methods=("GET", "HEAD"))
    assert (refused[-1].status, refused[-1].headers["allow"]) == (405, "GET, HEAD")


async def test_not_ready(port: MemoryPort, services: FakeServices) -> None:
    services.standing = type(services.standing)(ready=False, store="unavailable")
    reply = await one(port, request("GET", "/readyz", key=None))
    assert (reply.status, reply.json) == (503, {"ready": False, "store": "unavailable"})


async def test_a_bug_is_logged_and_not_shown(port: MemoryPort, caplog: pytest.LogCaptureFixture) -> None:
    reply = await one(port, request(body=chat_body("bug")))
    assert (reply.status, reply.error["type"], reply.error["code"]) == (500, "api_error", None)
    assert b"secret" not in bytes(port.transport.written)
    assert "a secret of the house" in caplog.text
    assert (await port.exchange(request(body=chat_body())))[-1].status == 200


async def test_a_bug_in_a_stream_ends_it_with_an_error_frame(port: MemoryPort) -> None:
    reply = await one(port, request(body=chat_body("late_bug")))
    assert (reply.status, reply.whole) == (200, True)
    first, last = reply.body.decode().removesuffix("\n\n").split("\n\n")
    assert first == "data: 1"
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "api_error"
    assert "secret" not in last


async def test_a_bug_behind_the_head_of_a_json_reply_cuts_it(
    port: MemoryPort, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half(call: object, sink: Exchange) -> None:
        await sink.head([(b"content-type", b"application/json")])
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(services.answers, "echo", half)
    reply = await one(port, request(body=chat_body()))
    assert (reply.status, reply.whole) == (200, False)
    assert port.aborted()


async def test_a_store_that_does_not_answer(port: MemoryPort) -> None:
    reply = await one(port, request(body=chat_body("no_store")))
    assert (reply.status, reply.error["code"]) == (503, "service_unavailable")
    assert "house" not in reply.error["message"]


async def test_each_request_has_its_line_in_the_log(port: MemoryPort, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chatport.access")
    replies = await port.exchange(request(body=chat_body("echo\nforged")), request("GET", "/v1/x?secret=1"))
    first, second = [record.msg for record in caplog.records]
    assert isinstance(first, Access)
    assert isinstance(second, Access)
    assert (first.method, first.path, first.status, first.key_id, first.model) == (
        "POST", CREATE, 200, "key_alice", "echo\nforged",
    )  # fmt: skip
    assert first.request_id == replies[0].headers["x-request-id"]
    assert "\n" not in str(first)
    assert (second.path, second.status, second.key_id) == ("/v1/x", 404, None)


async def test_the_log_says_when_the_client_left(port: MemoryPort, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chatport.access")
    await port.exchange(request(body=chat_body("wait")))
    port.leave()
    await port.settle()
    (access,) = [record.msg for record in caplog.records]
    assert isinstance(access, Access)
    assert (access.status, access.model) == (499, "wait")


async def test_every_request_has_an_id_of_its_own(port: MemoryPort) -> None:
    replies = await port.exchange(*[request(body=chat_body())] * 3, b"junk\r\n\r\n")
    assert len({reply.headers["x-request-id"] for reply in replies}) == 4


def test_routes_are_listed_once() -> None:
    paths = [route.path for route in ROUTES]
    assert len(set(paths)) == len(paths)


async def test_the_size_limit_counts_chunks_too(services: FakeServices) -> None:
    port = MemoryPort(create_app(services, WebSettings(max_body_bytes=100)))
    head = request(body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    (reply,) = await port.exchange(head, b"64\r\n" + b"x" * 100 + b"\r\n", b"1\r\nx\r\n")
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert "100 bytes" in reply.error["message"]
    assert services.answers.calls == []


async def test_a_body_in_tiny_chunks_takes_no_more_than_its_bytes() -> None:
    """Thirty times as much, where each chunk stays an object of its own until the end."""
    bodies: list[bytes] = []

    async def application(turn: Turn) -> None:
        bodies.append(await turn.body(1_000_000))
        await turn.reply(204, [], b"")

    port = MemoryPort(application)
    port.feed(request(body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    await port.settle()
    tracemalloc.start()
    for _ in range(60):
        port.feed(b"2\r\nab\r\n" * 500)
        await port.settle()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await port.exchange(b"0\r\n\r\n")
    assert bodies == [b"ab" * 30_000]
    assert grown < 300_000
