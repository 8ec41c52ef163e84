"""The start of a chat: which server, which key, and whether a person or a pipe asks."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from chatport.cli.chat.access import given_key, minted_key, require_chatport
from chatport.cli.chat.answers import Server
from chatport.cli.chat.conversation import Conversation
from chatport.cli.chat.errors import ChatError
from chatport.cli.chat.oneshot import answer_once, read_question
from chatport.cli.chat.request import Settings
from chatport.cli.chat.screen import clean
from chatport.cli.chat.transport import Transport
from chatport.cli.endings import Ending, end
from chatport.cli.port import url_at
from chatport.cli.signals import ended_by_signals
from chatport.config import home_of, load

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What ends a chat from outside, a closed terminal say. Windows has no SIGHUP."""

HISTORY = "chat_history"
"""The file in CHATPORT_HOME that keeps what was typed."""


class Place(Struct, frozen=True, kw_only=True):
    """The options that say where the server is."""

    base_url: str | None
    port: int | None
    config: Path | None


def talk(place: Place, model: str | None, system: str | None, settings: Settings) -> None:
    """The whole chat. Raises ConfigError, StoreError; ends the program for what goes wrong beside these."""
    for given, name in ((model, "MODEL"), (system, "--system")):
        if given is not None and not is_text(given):
            end(Ending.USAGE, f"{name} is not UTF-8.")
    conversation = Conversation(system)
    with ended_by_signals(Ending.INTERRUPTED, *SIGNALS):
        piped = not (sys.stdin.isatty() and sys.stdout.isatty())
        if piped:
            conversation.ask(read_question())
        try:
            with opened_server(place) as server:
                chosen = server.model(model)
                if piped:
                    answer_once(server, chosen, conversation, settings)
                else:
                    _converse(server, chosen, conversation, settings)
        except ChatError as error:
            end(error.ending, clean(str(error)))


def _converse(server: Server, model: str, conversation: Conversation, settings: Settings) -> None:
    from chatport.cli.chat.session import Session  # noqa: PLC0415  brings prompt_toolkit, which a pipe does not need

    Session(server, model, conversation, settings).run(home_of(os.environ) / HISTORY)


@contextmanager
def opened_server(place: Place) -> Iterator[Server]:
    """The server to talk to and the way in. Raises ChatError, ConfigError, StoreError."""
    if place.base_url is not None:
        yield Server(Transport(checked_url(place.base_url)), given_key(os.environ))
        return
    found = load(place.config, os.environ, port=place.port)
    if found.server.port == 0:
        end(Ending.USAGE, "The configuration lets the server take any free port. Give the one it has with --port.")
    root = url_at(found.server.host, found.server.port, secure=found.server.tls_cert is not None)
    options = () if place.port is None else ("--port", str(place.port))
    require_chatport(Transport(root, direct=True), found, *options)
    transport = Transport(f"{root}/v1", direct=True)
    with minted_key(found, transport) as access:
        yield Server(transport, access)


def is_text(argument: str) -> bool:
    """Whether an argument came as UTF-8: Python keeps other bytes in a form that can't be sent."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_url(url: str) -> str:
    """A base URL without the slash at its end. Ends the program for one that can't be one."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        end(Ending.USAGE, f"--base-url {url!r} is no address. Give one such as http://127.0.0.1:8000/v1.")
    if parts.username is not None or parts.query or parts.fragment:
        end(Ending.USAGE, "--base-url may hold no password, query or fragment. A key belongs into CHATPORT_API_KEY.")
    return url.rstrip("/")
