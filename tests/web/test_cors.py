"""Browsers: preflights, origins, readable headers; errors too, so that a page can see what went wrong."""

from __future__ import annotations

import pytest

from chatport.web.app import WebSettings, create_app
from support.memory_port import MemoryPort
from support.raw_http import Reply, request
from support.site import FakeServices, chat_body

PAGE = "https://app.example"


async def ask(
    origins: tuple[str, ...],
    method: str = "POST",
    *,
    origin: str | None = PAGE,
    key: str | None = "sk-good",
    **more: str,
) -> Reply:
    headers = [(name.replace("_", "-"), value) for name, value in more.items()]
    if origin is not None:
        headers.append(("Origin", origin))
    port = MemoryPort(create_app(FakeServices(), WebSettings(cors_origins=origins)))
    body = chat_body() if method == "POST" else b""
    (reply,) = await port.exchange(request(method, body=body, key=key, headers=headers))
    return reply


def allowed(reply: Reply) -> str | None:
    return reply.headers.get("access-control-allow-origin")


PREFLIGHT = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,x-stainless-os"}


@pytest.mark.parametrize(
    ("origins", "answer"), [((PAGE,), PAGE), (("*",), "*"), (("https://other.example", PAGE), PAGE)]
)
async def test_a_preflight_of_an_allowed_page(origins: tuple[str, ...], answer: str) -> None:
    reply = await ask(origins, "OPTIONS", key=None, **PREFLIGHT)
    assert (reply.status, allowed(reply)) == (204, answer)
    assert reply.headers["access-control-allow-methods"] == "POST, GET"
    assert reply.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert int(reply.headers["access-control-max-age"]) > 0
    assert reply.headers["x-request-id"]
    assert "access-control-allow-credentials" not in reply.headers
    assert not {"content-length", "transfer-encoding"} & set(reply.headers)
    asked = "access-control-request-method, access-control-request-headers"
    assert reply.headers["vary"] == (asked if answer == "*" else f"origin, {asked}")


STRANGERS = [((), PAGE), ((PAGE,), "https://evil.example"), ((PAGE,), None), ((PAGE,), "null")]


@pytest.mark.parametrize(("origins", "origin"), STRANGERS)
async def test_a_preflight_of_any_other(origins: tuple[str, ...], origin: str | None) -> None:
    reply = await ask(origins, "OPTIONS", origin=origin, key=None, **PREFLIGHT)
    assert (reply.status, reply.error["code"], allowed(reply)) == (405, "method_not_supported", None)
    assert ("access-control-request-method" in reply.headers.get("vary", "")) is bool(origins)


async def test_replies_and_errors_can_be_read() -> None:
    for key, status in (("sk-good", 200), ("sk-bad", 401)):
        reply = await ask((PAGE,), key=key)
        assert (reply.status, allowed(reply), reply.headers["vary"]) == (status, PAGE, "origin")
        exposed = reply.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= set(exposed)


async def test_other_pages_get_a_reply_they_cannot_read() -> None:
    reply = await ask((PAGE,), origin="https://evil.example")
    assert (reply.status, allowed(reply), reply.headers["vary"]) == (200, None, "origin")


async def test_off_by_default() -> None:
    assert not [name for name in (await ask(())).headers if name.startswith("access-control") or name == "vary"]
