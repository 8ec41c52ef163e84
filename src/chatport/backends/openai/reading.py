"""An upstream's answer as it arrives: bytes in, chunks out, without I/O."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from chatport.backends.openai.counting import estimated
from chatport.backends.openai.refusals import Asked, failure_in_answer
from chatport.backends.openai.reply import Piece, chunk_of, read_piece
from chatport.targets import Bound
from chatport.wire.chat import ChatChunk
from chatport.wire.errors import UpstreamFailed
from chatport.wire.sse import MAX_FRAME, SSEDecoder
from chatport.wire.tally import Tally

DONE = b"[DONE]"


class ReadLimits(Struct, frozen=True, kw_only=True):
    """Bytes that are read of one answer."""

    frame: int = MAX_FRAME
    """One event of a stream."""
    reply: int = 16 * 1024 * 1024
    """One JSON reply. The largest that are known carry sound: some MB."""
    stream: int = 256 * 1024 * 1024
    """All of a stream. The longest answers, sent token by token, have a quarter of that."""


def read(data: bytes, asked: Asked) -> Piece:
    """One chunk or reply. Raises what it becomes where it is an error, UpstreamFailed where it is nothing at all."""
    piece = read_piece(data)
    if piece.failed():
        raise failure_in_answer(data, asked)
    return piece


class StreamReader:
    """One streamed answer. An upstream that did not stream after all (`whole`) has sent its answer as one chunk."""

    def __init__(self, asked: Asked, choices: int, bound: Bound, limits: ReadLimits, *, whole: bool) -> None:
        self.done = False
        """`[DONE]` was said."""
        self.finished = False
        """All choices have said how they ended: whatever happens now, the answer is complete."""
        self._asked = asked
        self._open = choices
        self._left = limits.reply if whole else limits.stream
        self._bound = bound
        self._tally = Tally()
        self._counted = False
        self._decoder = SSEDecoder(limits.frame)
        self._whole: list[bytes] | None = [] if whole else None

    def feed(self, data: bytes) -> list[bytes]:
        """The events that end in these bytes, each to be read by `chunk`. Raises UpstreamFailed over a limit."""
        self._left -= len(data)
        if self._left < 0:
            raise UpstreamFailed("The model's upstream does not stop talking.")
        if self._whole is not None:
            self._whole.append(data)
            return []
        events = self._decoder.feed(data)
        if DONE in events:
            self.done = True
            events = events[: events.index(DONE)]
        return events

    def end(self) -> Iterator[ChatChunk]:
        """What is left when nothing more comes: the usage is estimated where the upstream did not say it."""
        if self._whole:
            yield self.chunk(b"".join(self._whole))
        if not self._counted:
            usage = estimated(self._tally, self._bound)
            yield ChatChunk(id="", created=0, model="", choices=[], system_fingerprint="", usage=usage)

    def chunk(self, data: bytes) -> ChatChunk:
        """What one event says. Raises ApiError for an error, and for garbage. (One at a time: what was said before a
        fault goes out before it.)"""
        chunk = chunk_of(read(data, self._asked))
        self._tally.add(chunk)
        if chunk.usage:
            self._counted = True
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                self._open -= 1
                self.finished = self._open <= 0
        return chunk
