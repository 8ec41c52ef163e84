"""An upstream that counts: a real server that speaks Chat Completions and knows what it has made for which request.

It makes one word after the other, each of four bytes and so one token by anybody's count, and goes on until it has made
as many as the request's `seed` says, its limit is reached, or whoever asked has left. What it does besides is named by
the model that it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec import json

from support.upstreams import CHUNKED_END, STREAM_HEAD, Asked, Wire, event, upstream, whole

PROMPT = 7
"""Tokens that it says every prompt has: fewer than any bound of one."""

WORDS = 60
"""More than it makes of any answer; a `seed` is below."""

FAILURE = whole(b'{"error": {"message": "down", "type": "server_error"}}', "500 Internal Server Error")


@dataclass
class Served:
    """What became of one request here."""

    asked: int = 0
    made: int = 0
    """Tokens."""
    whole: bool = False
    """It was made, and sent, to its end."""


@dataclass
class Counted:
    """A running one, and its count by `x-request-id`."""

    url: str
    pause: float = 0.0
    """Seconds before each word."""
    served: dict[str, Served] = field(default_factory=dict)

    def target(self, model: str = "says") -> str:
        """TOML of a target at it. `says` tells its usage, `silent` does not, `fails` answers 500, `breaks` goes away
        after half of its words."""
        return "\n".join(
            [
                "[[models.targets]]",
                'backend = "openai"',
                f'base_url = "{self.url}"',
                f'model = "{model}"',
                'api_key = "sk-upstream"',
            ]
        )

    def model(self, name: str, *models: str, attempts: int = 1) -> str:
        """TOML of a model with such targets, one of the model's own name if none is given."""
        targets = [self.target(model) + f"\npriority = {at}" for at, model in enumerate(models or (name,))]
        return "\n".join(["[[models]]", f'id = "{name}"', f"attempts = {attempts}", *targets, ""])

    async def answer(self, wire: Wire, asked: Asked) -> None:
        """One request."""
        request = asked.json
        served = self.served.setdefault(asked.headers["x-request-id"], Served())
        served.asked += 1
        if request["model"] == "fails":
            await wire.send(FAILURE)
            return
        limit = request.get("max_completion_tokens", request.get("max_tokens"))
        words = min(request["seed"], WORDS if limit is None else limit)
        if request["model"] == "breaks":
            await self._break(wire, request, served, words // 2)
            return
        finish = "stop" if words == request["seed"] else "length"
        usage = None if request["model"] == "silent" else said(words)
        if request.get("stream"):
            await self._stream(wire, served, words, finish, usage)
        else:
            await self._whole(wire, served, words, finish, usage)
        served.whole = True

    async def _stream(self, wire: Wire, served: Served, words: int, finish: str, usage: Any) -> None:
        await wire.send(STREAM_HEAD, _piece({"role": "assistant", "content": ""}))
        await self._words(wire, served, words)
        last = [] if usage is None else [event({"choices": [], "usage": usage})]
        await wire.send(_piece({}, finish), *last, event(b"[DONE]"), CHUNKED_END)

    async def _words(self, wire: Wire, served: Served, words: int) -> None:
        for number in range(words):
            await asyncio.sleep(self.pause)
            served.made += 1
            await wire.send(_piece({"content": word(number)}))

    async def _whole(self, wire: Wire, served: Served, words: int, finish: str, usage: Any) -> None:
        await asyncio.sleep(self.pause * words)
        served.made += words
        message = {"role": "assistant", "content": text(words)}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        await wire.send(whole(json.encode({"choices": [choice], "usage": usage})))

    async def _break(self, wire: Wire, request: Any, served: Served, words: int) -> None:
        if request.get("stream"):
            await wire.send(STREAM_HEAD, _piece({"role": "assistant", "content": ""}))
            await self._words(wire, served, words)
        wire.reset()


def word(number: int) -> str:
    return f"{number:03} "


def text(words: int) -> str:
    """The whole of an answer."""
    return "".join(map(word, range(words)))


def said(words: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT, "completion_tokens": words, "total_tokens": PROMPT + words}


def _piece(delta: dict[str, str], finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


@asynccontextmanager
async def counted(pause: float = 0.0) -> AsyncIterator[Counted]:
    """Runs one until the block is left."""
    state = Counted("", pause)
    async with upstream(state.answer) as running:
        state.url = running.url
        yield state
