"""What was said so far, as the API's own messages, and as a file: the body of a request, which curl can send too."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from chatport.cli.chat.errors import FileTrouble
from chatport.wire.chat import AssistantMessage, Message, SystemMessage, UserMessage

MAX_FILE = 64 * 1024 * 1024
"""Bytes of a file that is loaded."""


class Saved(Struct, frozen=True, kw_only=True):
    """A conversation as a file. More keys of a request may be in it; they are left alone."""

    model: str
    messages: list[Message]


class Conversation:
    """The system prompt, and the turns in order. The last one is the user's where it was not answered."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """All that a request carries."""
        return [*([SystemMessage(content=self.system)] if self.system else []), *self.turns]

    def ask(self, text: str) -> None:
        """Adds a question; it takes the place of one that was not answered."""
        if self.turns and isinstance(self.turns[-1], UserMessage):
            self.turns.pop()
        self.turns.append(UserMessage(content=text))

    def answer(self, text: str) -> None:
        """Adds what came, be it cut. Of nothing, nothing is kept: the question stays unanswered."""
        if text:
            self.turns.append(AssistantMessage(content=text))

    def reopen(self) -> bool:
        """Takes the answers to the last question back; False where there was no question."""
        asked = [at for at, turn in enumerate(self.turns) if isinstance(turn, UserMessage)]
        if asked:
            del self.turns[asked[-1] + 1 :]
        return bool(asked)

    def clear(self) -> None:
        """Forgets every turn; the system prompt stays."""
        self.turns = []

    def save(self, path: Path, model: str) -> None:
        """Writes the file whole or not at all, for its owner only. Raises FileTrouble."""
        text = msgspec.json.format(msgspec.json.encode(Saved(model=model, messages=self.messages)), indent=2)
        try:
            handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(text + b"\n")
                Path(beside).replace(path)
            except BaseException:
                Path(beside).unlink(missing_ok=True)
                raise
        except (OSError, ValueError) as error:
            raise FileTrouble(f"Can't write {path}: {_reason(error)}.") from None

    def load(self, path: Path) -> str:
        """Takes over a saved conversation, and returns its model. Raises FileTrouble, and then changes nothing."""
        try:
            with path.open("rb") as file:
                body = file.read(MAX_FILE + 1)
        except (OSError, ValueError) as error:
            raise FileTrouble(f"Can't read {path}: {_reason(error)}.") from None
        if len(body) > MAX_FILE:
            raise FileTrouble(f"{path} holds no conversation: it has more than {MAX_FILE} bytes.")
        try:
            saved = msgspec.json.decode(body, type=Saved)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FileTrouble(f"{path} holds no conversation: {error}.") from None
        match saved.messages:
            case [SystemMessage(content=str(system)), *turns]:
                self.system, self.turns = system, turns
            case turns:
                self.system, self.turns = None, turns
        return saved.model


def _reason(error: OSError | ValueError) -> str:
    """Why a file can't be had."""
    return error.strerror or str(error) if isinstance(error, OSError) else "no file can have this name"
