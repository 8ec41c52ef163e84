"""A client of the engine's own HTTP listener, which alone can tokenise and empty a slot.

Every engine opens one and it can't be switched off (engine.md, pitfall 1). Here it listens on a Unix socket in a
folder only this user may enter, and wants a key made for this run; on platforms without such sockets it is a loopback
port behind the same key. One connection a call: the listener answers in half a millisecond.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import msgspec

from chatport.backends.llama.gguf import ModelFileError
from chatport.wire.errors import InternalError

UNIX_SOCKETS: Final = hasattr(socket, "AF_UNIX") and os.name == "posix"
LONGEST_SOCKET_PATH = 100
"""Bytes that every platform takes in the address of a Unix socket (Linux 107, macOS 103)."""
LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes; a bound, not a goal."""


class Listener:
    """Where the engine is to listen, and how to ask there. `close` removes the folder."""

    def __init__(self) -> None:
        self.key = token_hex(16)
        self.folder = private_folder()
        self.hostname = str(self.folder / "engine.sock") if UNIX_SOCKETS else "127.0.0.1"
        self._address: str | tuple[str, int] = self.hostname

    def opened(self, address: str) -> None:
        """Takes the engine's word for where it listens: a loopback port is chosen by the system."""
        if not UNIX_SOCKETS:
            host, _, port = address.rpartition("/")[2].rpartition(":")
            self._address = (host, int(port))

    async def tokens(self, content: str | list[str | int], *, special: bool, start: bool = False) -> list[int]:
        """The ids of a text, or of texts with ids between them. special: control tokens' spellings become such; start:
        with what begins a prompt."""
        body = {"content": content, "parse_special": special, "add_special": start}
        answer = await asyncio.to_thread(self.ask, "/tokenize", body) if not UNIX_SOCKETS else await self._ask(body)
        tokens: list[int] = answer["tokens"]
        return tokens

    def erase(self, slots: Sequence[int]) -> None:
        """Empties slots, so that nothing of earlier requests is in the cache."""
        for slot in slots:
            self.ask(f"/slots/{slot}?action=erase", {})

    def ask(self, path: str, body: Any) -> Any:
        """POSTs and waits. Raises InternalError."""
        try:
            with self._connected() as connection:
                connection.sendall(self._request(path, body))
                chunks = []
                while chunk := connection.recv(65536):
                    chunks.append(chunk)
        except OSError as exc:
            raise InternalError from exc
        return _answer(b"".join(chunks))

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _ask(self, body: Any) -> Any:
        """The same for tokens, without a thread: the one call that every request makes."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._address))
            try:
                writer.write(self._request("/tokenize", body))
                answer = await reader.read(LARGEST_ANSWER)
                while not reader.at_eof():
                    answer += await reader.read(LARGEST_ANSWER)
            finally:
                writer.close()
        except OSError as exc:
            raise InternalError from exc
        return _answer(answer)

    def _connected(self) -> socket.socket:
        if isinstance(self._address, tuple):
            return socket.create_connection(self._address)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        return connection

    def _request(self, path: str, body: Any) -> bytes:
        content = msgspec.json.encode(body)
        return (
            f"POST {path} HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {self.key}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content


def _answer(raw: bytes) -> Any:
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head[:16]:
        raise InternalError
    return msgspec.json.decode(body)


def private_folder() -> Path:
    """A new folder that only this user may enter (mkdtemp makes it 0700), with a short enough path for a socket."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]  # noqa: S108  made by mkdtemp
    for parent in candidates:
        if parent and os.access(parent, os.W_OK) and len(os.fsencode(parent)) + 30 < LONGEST_SOCKET_PATH:
            return Path(tempfile.mkdtemp(prefix="chatport-", dir=parent))
    raise ModelFileError("The engine needs a folder for its socket, and none of the temporary folders can be written.")
