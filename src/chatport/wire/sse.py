"""Server-sent events, both ways: chunks to frames for our clients, bytes of an upstream to the data of its events.

Nothing here reads a socket. What we write is one `data:` line and a blank one per chunk (contract.md §10); what we read
is anything the standard allows.

Source: WHATWG HTML, "Interpreting an event stream".
"""

from __future__ import annotations

import msgspec

from chatport.wire.chat import ChatChunk
from chatport.wire.errors import ApiError, UpstreamFailed

DONE = b"data: [DONE]\n\n"
"""The last frame of a stream that went well."""

COMMENT = b": keep-alive\n\n"
"""What keeps proxies awake while a model is silent; every client skips it."""

MAX_FRAME = 1024 * 1024
"""Bytes that one event of an upstream may hold. Its largest known frame is a tool call sent whole: some 100 KB."""

_BOM = b"\xef\xbb\xbf"
_encode = msgspec.json.Encoder().encode


def frame(chunk: ChatChunk) -> bytes:
    """One frame. JSON has no raw line break, so the chunk is always a single line."""
    return b"".join((b"data: ", _encode(chunk), b"\n\n"))


def error_frame(error: ApiError) -> bytes:
    """The frame that ends a stream which broke after its head was sent; no `[DONE]` follows it (§10, 12)."""
    return b"data: %b\n\n" % error.body()


class SSEDecoder:
    """Feed bytes as they come, get the data of each event that is whole; the same events whatever the split.

    Lines end with CR, LF or CRLF; several `data:` lines are joined by LF; comments, `id:` and `retry:` are skipped, and
    so is `event:`, since in every dialect we read the data says itself what it is. An event that was not ended by a
    blank line is never given out: it was cut short.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._tail: list[bytes] = []  # pieces of the last line, which has not ended; joined once, when it does
        self._tail_size = 0
        self._data: list[bytes] = []  # lines of the event that has not ended
        self._data_size = 0
        self._after_cr = False
        self._first_line = True
        self._at_event = False  # nothing is held: the next byte is the first of an event

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that end in this chunk. Raises UpstreamFailed for an event over the limit."""
        line, _, rest = chunk.partition(b"\n")
        if self._at_event and rest == b"\n" and len(line) <= self._max_frame:
            name, _, value = line.partition(b": ")
            if name == b"data" and not value.partition(b"\r")[1]:  # one event and no more, as nearly all arrive
                return [value]
        return self._feed(chunk)

    def _feed(self, chunk: bytes) -> list[bytes]:
        """The same, wherever the chunk begins and ends."""
        if self._after_cr or chunk.find(b"\r") >= 0:  # `in` would ask first whether it is a number
            chunk = self._with_line_feeds(chunk)
        *lines, rest = chunk.split(b"\n")
        if lines and (self._tail or self._first_line):
            lines[0] = self._whole(lines[0])
        events = []
        for line in lines:
            if line:
                self._hold(line)
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
                self._data_size = 0
        if rest:
            self._keep(rest)
        self._at_event = not (self._tail or self._data or self._after_cr or self._first_line)
        return events

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """The same lines, each ended by LF."""
        if not chunk:
            return chunk
        ends_with_cr = chunk.endswith(b"\r")
        if self._after_cr:  # a CRLF that was split: its CR has ended the line already
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = ends_with_cr
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _whole(self, end: bytes) -> bytes:
        """The line that ends here, with what came of it before."""
        line = b"".join([*self._tail, end])
        self._tail.clear()
        self._tail_size = 0
        if self._first_line:
            self._first_line = False
            return line.removeprefix(_BOM)
        return line

    def _hold(self, line: bytes) -> None:
        """Keeps what the line says for its event."""
        if self._data_size + len(line) > self._max_frame:
            raise self._too_large()
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
        elif line == b"data":
            value = b""
        else:
            return
        self._data.append(value)
        self._data_size += len(value) + 1  # an empty line counts too: a million of them are no small event

    def _keep(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._tail_size += len(piece)
        if self._data_size + self._tail_size > self._max_frame:
            raise self._too_large()

    def _too_large(self) -> UpstreamFailed:
        return UpstreamFailed(f"The upstream sent an event of more than {self._max_frame} bytes.")
