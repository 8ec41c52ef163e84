"""What an operator does over HTTP."""

from __future__ import annotations

import pytest

from chatport.policy.limits import Subjects
from chatport.reloading import Reloaded
from chatport.store.limits import Limit, Rules
from chatport.web.app import WebSettings, create_app
from chatport.wire.errors import InvalidRequest
from support.memory_port import MemoryPort
from support.raw_http import request
from support.site import FakeServices

ROUTES = [("POST", "/admin/reload"), ("GET", "/admin/unknown-fields"), ("GET", "/admin/limits")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(("key", "status"), [(None, 401), ("sk-good", 403), ("sk-admin", 200)])
async def test_it_takes_an_admin_key(method: str, path: str, key: str | None, status: int) -> None:
    port = MemoryPort(create_app(FakeServices(), WebSettings()))
    (reply,) = await port.exchange(request(method, path, key=key))
    assert reply.status == status


async def test_a_reload_says_what_needs_a_restart() -> None:
    services = FakeServices()
    services.reloaded = Reloaded(models=("a",), restart_needed=("server.port",))
    port = MemoryPort(create_app(services, WebSettings()))
    (reply,) = await port.exchange(request("POST", "/admin/reload", key="sk-admin"))
    assert reply.json == {"models": ["a"], "restart_needed": ["server.port"]}


async def test_limits_that_report_are_listed() -> None:
    services = FakeServices()
    services.limits.configure([Limit(kind="key", subject="*", rules=Rules(rpm=1), mode="report")])
    for _ in range(3):
        await services.limits.admit(Subjects("key_1", None, "echo", None), 0.0)
    port = MemoryPort(create_app(services, WebSettings()))
    (reply,) = await port.exchange(request("GET", "/admin/limits", key="sk-admin"))
    assert reply.json == {"object": "list", "data": [{"scope": "key:*", "limit": "rpm", "count": 2}]}


async def test_a_bad_file_says_why() -> None:
    services = FakeServices()
    services.reloaded = InvalidRequest("c.toml:3: no", code="invalid_configuration")
    port = MemoryPort(create_app(services, WebSettings()))
    (reply,) = await port.exchange(request("POST", "/admin/reload", key="sk-admin"))
    assert (reply.status, reply.error["code"]) == (400, "invalid_configuration")
