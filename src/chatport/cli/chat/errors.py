"""What can go wrong in a chat: a sentence for the person, and how the program ends where nothing can go on."""

from __future__ import annotations

from typing import ClassVar

from chatport.cli.endings import Ending


class ChatError(Exception):
    """Something that a person is told. In a conversation it costs one answer, at the start it ends the program."""

    ending: ClassVar[Ending] = Ending.FAILED


class NoServer(ChatError):
    """Nobody answers at the address, or somebody who does not speak this API."""

    ending = Ending.SERVER


class KeyRefused(ChatError):
    """The server does not take the key."""

    ending = Ending.SERVER


class RequestRefused(ChatError):
    """The server answers with an error. `status`: its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class AnswerBroken(ChatError):
    """An answer that began and will not be finished."""


class UnknownModel(ChatError):
    """The server has no such model."""


class FileTrouble(ChatError):
    """A conversation can't be saved or loaded."""
