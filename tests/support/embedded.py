"""The embedded model for tests: small requests, and what comes of them."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import msgspec

from chatport.backends.llama import FEATURES, LlamaBackend, LlamaSettings
from chatport.targets import Target
from chatport.wire.chat import ChatCompletion, ChatRequest, Choice

TARGET = Target(id="t", backend="b", model="m", features=FEATURES, context=8192)
LONG = "Some context about things that matter. " * 21
"""More than two batches of a prompt."""
END_OF_TURN = "2"
"""Token id; banned where an answer must be as long as its limit."""


def ask(text: str = "What is the capital of France?", **fields: Any) -> ChatRequest:
    """temperature 0 and at most 12 tokens, unless told otherwise."""
    messages = fields.pop("messages", [{"role": "user", "content": text}])
    request = {"model": "m", "messages": messages, "temperature": 0, "max_tokens": 12, **fields}
    return msgspec.json.decode(msgspec.json.encode(request), type=ChatRequest)


def opened(path: Path, **settings: Any) -> LlamaBackend:
    settings = {"threads": 2, "system_prompt": "You are a helpful assistant.", **settings}
    return asyncio.run(LlamaBackend.open(LlamaSettings(path=path, **settings)))


async def answer(backend: LlamaBackend, request: ChatRequest) -> ChatCompletion:
    return await backend.complete(TARGET, request, await backend.bound(TARGET, request))


async def choice(backend: LlamaBackend, request: ChatRequest) -> Choice:
    return (await answer(backend, request)).choices[0]


async def text(backend: LlamaBackend, request: ChatRequest) -> str:
    return (await choice(backend, request)).message.content or ""


async def busy_slots(backend: LlamaBackend) -> int:
    """How many slots the engine itself says are at work."""
    engines = backend._engine.listener
    raw = await asyncio.to_thread(_get, engines.hostname, engines.key, "/slots")
    return sum(slot["is_processing"] for slot in json.loads(raw))


def _get(path: str, key: str, address: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(
            f"GET {address} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode()
        )
        raw = b""
        while chunk := connection.recv(65536):
            raw += chunk
    return raw.partition(b"\r\n\r\n")[2]
