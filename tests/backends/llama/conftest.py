"""Loaded models, shared by the tests of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatport.backends.llama import LlamaBackend
from chatport.targets import Target
from support.embedded import TARGET, opened


@pytest.fixture(scope="module")
def backend(smollm2_path: Path) -> Iterator[LlamaBackend]:
    backend = opened(smollm2_path)
    yield backend
    asyncio.run(backend.close())


@pytest.fixture(scope="module")
def target() -> Target:
    return TARGET


@pytest.fixture(scope="module")
def small(smollm2_path: Path) -> Iterator[LlamaBackend]:
    """A window of 256 tokens for two slots, and room for one request in the queue."""
    backend = opened(smollm2_path, context=256, slots=2, queue=1)
    yield backend
    asyncio.run(backend.close())
