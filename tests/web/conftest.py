"""An application over fakes: in memory, and on a real port."""

from __future__ import annotations

import pytest

from chatport.web.app import WebSettings, create_app
from support.memory_port import MemoryPort
from support.site import FakeServices


@pytest.fixture
async def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def port(services: FakeServices) -> MemoryPort:
    return MemoryPort(create_app(services, WebSettings(max_body_bytes=4096)))
