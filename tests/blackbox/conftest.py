"""Clients of a running server: the official SDK and plain HTTP, on scripted models and on the embedded one."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from support.asking import Api
from support.serving import Server


@pytest.fixture(scope="session")
def api(scripted_server: Server) -> Iterator[Api]:
    client = Api(scripted_server)
    yield client
    client.close()


@pytest.fixture(scope="session")
def model(model_server: Server) -> Iterator[Api]:
    client = Api(model_server)
    yield client
    client.close()


@pytest.fixture(scope="session")
def sdk(scripted_server: Server) -> Iterator[openai.OpenAI]:
    with sdk_for(scripted_server) as client:
        yield client


@pytest.fixture(scope="session")
def model_sdk(model_server: Server) -> Iterator[openai.OpenAI]:
    with sdk_for(model_server) as client:
        yield client


def sdk_for(server: Server) -> openai.OpenAI:
    """As a user would make one; without retries, so that each test sees the reply it caused."""
    direct = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, http_client=direct)
