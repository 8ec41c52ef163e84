"""An outlet for a test: remembers every chunk of an answer that a client would see."""

from __future__ import annotations

from chatport.wire.chat import ChatChunk


class Told:
    """Takes everything; `late`: only what it has caught up with counts."""

    def __init__(self, *, late: bool = False) -> None:
        self.chunks: list[ChatChunk] = []
        self._late = late
        self._waiting: list[ChatChunk] = []

    def push(self, chunk: ChatChunk) -> bool:
        (self._waiting if self._late else self.chunks).append(chunk)
        return not self._late

    async def catch_up(self) -> None:
        self.chunks += self._waiting
        self._waiting = []

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk.choices]
        return "".join(str(choice.delta.content or "") for choice in choices)
