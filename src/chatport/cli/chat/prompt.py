"""The line where the person types: keys, blocks of several lines, history and completion.

prompt_toolkit is what interactive Python programs use for this: pasted line breaks stay text, lines wrap and are
edited with Chinese in them, history and search work as in a shell. What is pressed is decided here and by it alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from chatport.cli.chat.screen import remark

QUOTES = '"""'
"""Opens a block of several lines, and closes it. Precedent: ollama."""

PROMPT, CONTINUED = ">>> ", "... "

HISTORY_BYTES = 1024 * 1024
"""Size at which the older half of the history is let go."""

_ENTRY = b"\n# "
"""How prompt_toolkit's file begins an entry."""

Choices = Mapping[str, Callable[[], Iterable[str]] | None]
"""Each command, and where its argument is chosen from: a list, files (None), nothing (an empty list)."""


def command_of(line: str) -> tuple[str, str] | None:
    """The command in a line and its argument; None for a message, such as one that begins with a space."""
    if not line.startswith("/"):
        return None
    word, *rest = line.split(maxsplit=1)
    return word, spoken(rest[0]) if rest else ""


def spoken(text: str) -> str:
    """What was meant by what was typed: a block without its quotes, any other text without the space around it."""
    text = text.strip()
    if text.startswith(QUOTES) and not is_open(text):
        return text[len(QUOTES) : -len(QUOTES)].removeprefix("\n").removesuffix("\n")
    return text


def is_open(text: str) -> bool:
    """Whether a block was opened and not closed, so that Enter does not send it."""
    if text.startswith("/"):
        text = text.partition(" ")[2]
    text = text.strip()
    return text.startswith(QUOTES) and not (text.endswith(QUOTES) and len(text) >= 2 * len(QUOTES))


class Prompt:
    """Reads what the person enters. `history`: the file that keeps it."""

    def __init__(self, history: Path, choices: Choices) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,  # Enter is ours: it sends unless a block is open
            key_bindings=_keys(),
            prompt_continuation=CONTINUED,
            history=opened_history(history),
            completer=CommandCompleter(choices),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
        )

    def read(self) -> str:
        """Raises KeyboardInterrupt for Ctrl-C, EOFError for Ctrl-D on an empty line."""
        return encodable(self._session.prompt(PROMPT))


def encodable(text: str) -> str:
    """The text with `?` for what a terminal sent that is not UTF-8, which no request could carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _keys() -> KeyBindings:
    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # and not the search through the history

    @keys.add("enter", filter=typing)
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=typing)
    def line_break(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class CommandCompleter(Completer):
    """Commands, and what may follow them."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        word, space, argument = document.text_before_cursor.partition(" ")
        if not space:
            yield from _beginning(word, self._choices if word.startswith("/") else ())
        elif word in self._choices:
            choose = self._choices[word]
            if choose is None:
                yield from self._files.get_completions(Document(argument), complete_event)
            else:
                yield from _beginning(argument, choose())


def _beginning(typed: str, words: Iterable[str]) -> Iterator[Completion]:
    return (Completion(word, start_position=-len(typed)) for word in words if word.startswith(typed))


class KeptHistory(FileHistory):
    """A file whose troubles (a full disk) cost what they must, which is not the conversation."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(encodable(string))


def opened_history(path: Path) -> History:
    """The history in this file, which only its owner may read; one that is not kept where there can be no file."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            path.chmod(0o600)
            shorten(file)
    except OSError as error:
        remark(f"What you type is not remembered: {path}: {error.strerror}.")
        return InMemoryHistory()
    return KeptHistory(str(path))


def shorten(file: BinaryIO) -> None:
    """Lets the older half go where the file has more than `HISTORY_BYTES`."""
    entries = file.read()
    if len(entries) > HISTORY_BYTES:
        newer = entries[-HISTORY_BYTES // 2 :]
        file.seek(0)
        file.write(newer[max(newer.find(_ENTRY), 0) :])
        file.truncate()
