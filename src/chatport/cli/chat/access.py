"""The key of a chat: one from the environment, or one that the chat mints for itself and revokes when it ends."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from chatport.cli.chat.errors import ChatError, KeyRefused, NoServer
from chatport.cli.chat.transport import Transport
from chatport.cli.keys import opened_keys
from chatport.cli.options import command_line
from chatport.config import Config

if TYPE_CHECKING:
    from chatport.policy.keys import NewKey

VARIABLES = ("CHATPORT_API_KEY", "OPENAI_API_KEY")
"""Where the key of another server is looked for, in this order. Never in the arguments: those everybody can read."""

LIFETIME = 1800.0
"""Seconds that a minted key is good for. A chat that lasts longer mints another one."""

RENEW_BEFORE = 60.0
"""Seconds before its end at which a key is replaced."""

NOTICE_SECONDS = 3.0
"""Seconds in which the server must have noticed a new key; it promises one."""

NOTICE_INTERVAL = 0.05
"""Seconds between two looks whether it has."""

LONGEST_HOST = 50
"""Characters of this machine's name in a key's name."""


class Access(Protocol):
    """Where keys come from."""

    @property
    def origin(self) -> str:
        """A sentence for whoever's key was refused."""

    def key(self) -> str | None:
        """The key to use now, None for none. Raises ChatError, StoreError."""


class GivenKey(Struct, frozen=True):
    """The key that the environment holds, if any."""

    value: str | None
    variable: str | None

    @property
    def origin(self) -> str:
        if self.variable is None:
            return f"None was given: put it into {VARIABLES[0]} or {VARIABLES[1]}."
        return f"It came from {self.variable}."

    def key(self) -> str | None:
        return self.value


def given_key(environ: Mapping[str, str]) -> GivenKey:
    """The first one of `VARIABLES`. Raises ChatError, without repeating it, for one that no header can carry."""
    variable = next((name for name in VARIABLES if environ.get(name, "").strip()), None)
    if variable is None:
        return GivenKey(None, None)
    value = environ[variable].strip()
    if not re.fullmatch(r"[!-~]+", value):
        raise ChatError(f"{variable} holds no key: it has spaces or characters beyond ASCII in it.")
    return GivenKey(value, variable)


class MintedKey:
    """A key of the local server that expires soon, and is replaced before it does.

    Each call opens the database anew: a chat holds nothing open while the person thinks. `clock`: Unix seconds.
    """

    origin = "It was minted for this chat, and may have been revoked."

    def __init__(
        self,
        config: Config,
        transport: Transport,
        *,
        lifetime: float = LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._transport = transport
        self._lifetime = lifetime
        self._clock = clock
        self._minted: list[NewKey] = []
        self._renew_at = 0.0

    def key(self) -> str:
        """Raises StoreError, NoServer, and KeyRefused where the server does not know keys of our database."""
        if self._clock() >= self._renew_at:
            self._renew()
        return self._minted[-1].key

    def close(self) -> None:
        """Revokes what is still open. Raises StoreError."""
        earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient Ctrl-C must not leave the key open
        try:
            asyncio.run(self._revoke(self._minted))
            self._minted = []
        finally:
            signal.signal(signal.SIGINT, earlier)

    def _renew(self) -> None:
        path = self._config.store_url.removeprefix("sqlite:///")
        if path != self._config.store_url and not Path(path).exists():
            raise self._foreign()  # before an empty database is made where the server has none
        now = self._clock()
        asyncio.run(self._mint(now))
        self._await_notice()
        self._renew_at = now + max(self._lifetime - RENEW_BEFORE, self._lifetime / 2)
        asyncio.run(self._revoke(self._minted[:-1]))
        self._minted = self._minted[-1:]

    async def _mint(self, now: float) -> None:
        async with opened_keys(self._config) as keys:
            if await keys.is_empty():
                raise self._foreign()  # a server that has started has keys
            name = f"chat on {_this_machine()}, process {os.getpid()}"
            self._minted.append(await keys.create(name=name, now=now, expires_at=now + self._lifetime))

    async def _revoke(self, minted: list[NewKey]) -> None:
        if minted:
            async with opened_keys(self._config) as keys:
                for key in minted:
                    await keys.revoke(key.id, self._clock())

    def _await_notice(self) -> None:
        """Returns as soon as the server takes the newest key: it sees by itself that keys have changed."""
        deadline = time.monotonic() + NOTICE_SECONDS
        while True:
            try:
                self._transport.get("/models", self._minted[-1].key)
            except KeyRefused:
                if time.monotonic() > deadline:
                    raise self._foreign() from None
                time.sleep(NOTICE_INTERVAL)
            else:
                return

    def _foreign(self) -> KeyRefused:
        return KeyRefused(
            f"The server at {self._transport.url} does not work on the database of {self._config.home}, so that a key "
            "made there does not open it. Give its configuration file with --config or its folder in CHATPORT_HOME; "
            f"or --base-url {self._transport.url}, with a key of its own in {VARIABLES[0]}."
        )


@contextmanager
def minted_key(config: Config, transport: Transport) -> Iterator[MintedKey]:
    """A key for the time of a chat, none before it is asked for; revoked at the end, whichever way that comes."""
    access = MintedKey(config, transport)
    try:
        yield access
    finally:
        access.close()


class Greeting(Struct):
    """What a Chatport says at `/`."""

    name: str


def require_chatport(root: Transport, config: Config, *options: str) -> None:
    """Raises NoServer where no Chatport listens. `options`: what the command that starts one there must be given."""
    try:
        greeting = msgspec.json.decode(root.get("/", None), type=Greeting)
    except NoServer as error:
        raise NoServer(f"{error} Start a server with: {command_line(config, 'serve', *options)}") from None
    except (ChatError, msgspec.DecodeError, UnicodeDecodeError):
        greeting = None
    if greeting is None or greeting.name != "Chatport":
        raise NoServer(
            f"What answers at {root.url} is not Chatport. Give the port of yours with --port, or talk to this server "
            f"with --base-url {root.url}/v1"
        )


def _this_machine() -> str:
    """Its name, as far as a key's name can hold it."""
    return "".join(filter(str.isprintable, platform.node()))[:LONGEST_HOST] or "this machine"
