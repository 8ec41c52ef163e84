"""`chatport chat` beside a server of the test's own: at a terminal, or with a question from a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NamedTuple

from support.serving import Server, environment_for
from support.terminal import PATIENCE, Terminal, at_terminal


class Ended(NamedTuple):
    code: int
    stdout: bytes
    stderr: str


class Chats:
    """`chatport chat` beside one server."""

    def __init__(self, server: Server, cwd: Path) -> None:
        self.server = server
        self.cwd = cwd
        self.environ = environment_for(server.home)
        config = server.home / "chatport.toml"
        named = ["--config", str(config)] if config.exists() else []
        self._local = [*named, "--port", server.url.rpartition(":")[2]]

    def at_terminal(
        self, *arguments: str, stdin: bytes | None = None, stdout: IO[bytes] | None = None
    ) -> AbstractContextManager[Terminal]:
        """A chat with the local server, a person at it."""
        command = ["chat", *arguments, *self._local]
        return at_terminal(command, self.environ, self.cwd, stdin=stdin, stdout=stdout)

    def elsewhere(self, base_url: str, *arguments: str) -> AbstractContextManager[Terminal]:
        """A chat with another server, a person at it."""
        return at_terminal(["chat", "--base-url", base_url, *arguments], self.environ, self.cwd)

    def piped(self, question: str | bytes, *arguments: str) -> Ended:
        """A chat with the local server that gets one message from a pipe."""
        return self.run(question, *arguments, *self._local)

    def run(self, question: str | bytes, *arguments: str, **environ: str) -> Ended:
        """`chatport chat ARGUMENTS`, with these variables too."""
        done = subprocess.run(
            [sys.executable, "-m", "chatport", "chat", *arguments],
            input=question.encode() if isinstance(question, str) else question,
            env=self.environ | environ,
            cwd=self.cwd,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr.decode())

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A chat with the local server that is left to run, stdin and stdout being pipes."""
        command = [sys.executable, "-m", "chatport", "chat", *arguments, *self._local]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environ, cwd=self.cwd)

    def minted(self) -> list[dict[str, Any]]:
        """The keys that chats have minted, as the database has them, oldest first."""
        entries = json.loads(self.server.cli("keys", "list", "--json"))
        return [entry for entry in entries if entry["name"].startswith("chat on ")]

    def saved(self, name: str) -> list[dict[str, Any]]:
        """The messages of a saved conversation."""
        messages = json.loads((self.cwd / name).read_text("utf-8"))["messages"]
        assert isinstance(messages, list)
        return messages
