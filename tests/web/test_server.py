"""The server on a real port, on both loops: leaving, slow clients, refused uploads, the end. Raw sockets throughout."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from chatport.web.app import WebSettings, create_app
from chatport.web.limits import HTTPLimits
from chatport.web.server import ServerSettings
from support.ports import ServedPort, serving_app
from support.raw_http import PATIENCE, RawClient, Reply, request
from support.site import Answers, FakeServices, chat_body

Scenario = Callable[[ServedPort, Answers], Awaitable[None]]
Run = Callable[[Scenario, ServerSettings], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario against a fresh server, in a loop of its own."""

    async def main(scenario: Scenario, settings: ServerSettings) -> None:
        services = FakeServices()
        async with serving_app(create_app(services, WebSettings()), settings) as port:
            await scenario(port, services.answers)

    def run(scenario: Scenario, settings: ServerSettings) -> None:
        start: Callable[[Coroutine[Any, Any, None]], None] = request.param
        start(main(scenario, settings))

    return run


SETTINGS = ServerSettings(drain_seconds=PATIENCE, limits=HTTPLimits(linger_seconds=1))


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


@pytest.mark.parametrize("how", ["FIN", "reset"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([request(body=chat_body("wait"))], id="waiting"),
        pytest.param([request(body=chat_body("stream"))], id="streaming"),
        pytest.param([request(body=chat_body("wait")), request(body=chat_body())], id="a request waits"),
        pytest.param([request(body=chat_body("stream")), request(body=chat_body())[:-9]], id="a body is half sent"),
    ],
)
def test_a_client_that_leaves_ends_its_request(run: Run, sent: list[bytes], how: str) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as client:
            await client.send(*sent)
            await soon(answers.started)
            if how == "FIN":
                client.finish_sending()
            else:
                client.reset()
            await soon(answers.ended)
        await port.idle()
        assert (answers.cancelled, len(answers.calls)) == (1, 1)

    run(scenario, SETTINGS)


def test_a_client_that_does_not_read_holds_the_stream_and_nobody_else(run: Run) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as slow, RawClient(port.number) as other:
            await slow.send(request(body=chat_body("flood")))
            await soon(answers.started)
            sent = -1
            async with asyncio.timeout(PATIENCE):
                while sent != answers.sent:
                    sent = answers.sent
                    await other.send(request(body=chat_body()))
                    assert (await other.reply()).status == 200
                    await asyncio.sleep(0.05)
            slow.reset()
            await soon(answers.ended)
        await port.idle()
        assert answers.cancelled == 1

    run(scenario, SETTINGS)


def test_a_refused_upload_hears_why(run: Run) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        piece = b"x" * 1_000_000
        head = request(key="sk-bad").replace(b"Content-Length: 0", b"Content-Length: 20000000")
        async with RawClient(port.number) as client:
            await client.send(head, *[piece] * 20)
            (reply,) = await client.rest()
        assert (reply.status, reply.closes, reply.whole) == (401, True, True)

    run(scenario, SETTINGS)


def test_bad_http_gets_its_reply_over_a_socket(run: Run) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as client:
            await client.send(request(body=chat_body()), b"GET / HTTP/9.9\r\n", b"Host: a\r\n\r\n", b"x" * 500_000)
            good, bad = await client.rest()
        assert (good.status, bad.status, bad.error["type"]) == (200, 400, "invalid_request_error")

    run(scenario, SETTINGS)


def test_late_clients_are_found_by_the_sweep(run: Run) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as slow, RawClient(port.number) as idle:
            await slow.send(b"GET / HTTP/1.1\r\nHo")
            await idle.send(request("GET", "/healthz"))
            assert [reply.status for reply in await slow.rest()] == [400]
            assert [reply.status for reply in await idle.rest()] == [200]

    limits = HTTPLimits(header_seconds=0.05, idle_seconds=0.05, linger_seconds=0.05)
    run(scenario, ServerSettings(drain_seconds=PATIENCE, limits=limits))


def test_the_first_signal_lets_running_requests_finish(run: Run) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as idle, RawClient(port.number) as busy:
            await idle.send(request("GET", "/healthz"))
            assert (await idle.reply()).status == 200
            await busy.send(request(body=chat_body("stream")))
            await busy.until(b"data: 1")
            signal.raise_signal(signal.SIGTERM)
            assert await idle.rest() == []
            with pytest.raises(ConnectionError):
                await RawClient(port.number).__aenter__()
            answers.go_on.set()
            (reply,) = await busy.rest()
            assert reply.body.endswith(b"data: [DONE]\n\n")
        await port.task
        assert answers.cancelled == 0

    run(scenario, SETTINGS)


def test_the_second_signal_ends_at_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chatport")

    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as client:
            await client.send(request(body=chat_body("stream")))
            await client.until(b"data: 1")
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await port.task
            assert answers.cancelled == 1
            (reply,) = await client.rest()
            assert_stream_says_stopping(reply)

    run(scenario, ServerSettings(drain_seconds=3600))
    assert "1 requests were cut short" in caplog.text
    assert_logged(caplog, 503)


def assert_stream_says_stopping(reply: Reply) -> None:
    first, last = reply.body.decode().removesuffix("\n\n").split("\n\n")
    assert (reply.status, reply.whole, first) == (200, True, "data: 1")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "service_unavailable"


def assert_logged(caplog: pytest.LogCaptureFixture, status: int) -> None:
    (line,) = [record.getMessage() for record in caplog.records if record.name == "chatport.access"]
    assert f" {status} " in line


def test_draining_has_an_end_that_streams_hear_of(run: Run) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as client:
            await client.send(request(body=chat_body("stream")))
            await client.until(b"data: 1")
            port.server.should_exit = True
            (reply,) = await client.rest()
            assert_stream_says_stopping(reply)
        await port.task
        assert answers.cancelled == 1

    run(scenario, ServerSettings(drain_seconds=0.1))


def test_a_body_that_is_arriving_when_the_server_ends_gets_its_503(run: Run) -> None:
    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as client, RawClient(port.number) as other:
            await client.send(request(body=chat_body())[:-9])
            await other.send(request(body=chat_body()))
            assert (await other.reply()).status == 200
            port.server.should_exit = True
            (reply,) = await client.rest()
        assert (reply.status, reply.error["code"]) == (503, "service_unavailable")
        await port.task

    run(scenario, ServerSettings(drain_seconds=0.1))


def test_a_client_that_does_not_read_does_not_hold_the_end(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chatport")

    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as slow:
            await slow.send(request(body=chat_body("flood")))
            await soon(answers.started)
            port.server.should_exit = True
            async with asyncio.timeout(PATIENCE):
                await port.task
            assert answers.cancelled == 1

    run(scenario, ServerSettings(drain_seconds=0.1))
    assert_logged(caplog, 503)


def test_draining_has_an_end(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chatport")

    async def scenario(port: ServedPort, answers: Answers) -> None:
        async with RawClient(port.number) as client:
            await client.send(request(body=chat_body("wait")))
            await soon(answers.started)
            port.server.should_exit = True
            async with asyncio.timeout(PATIENCE):
                await port.task
            assert answers.cancelled == 1
            (reply,) = await client.rest()
            assert (reply.status, reply.error["code"], reply.closes) == (503, "service_unavailable", True)
            assert reply.headers["retry-after"] == "1"

    run(scenario, ServerSettings(drain_seconds=0.1))
    assert_logged(caplog, 503)
