"""Stop sequences: found across the borders of tokens, never leaked, not in part either.

Done here and not by the engine, which loses what it holds back when an answer reaches its limit in the middle of what
might have become a stop sequence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from msgspec import Struct, structs

from chatport.wire.chat import TokenLogprob


class Piece(Struct, frozen=True):
    """What one token adds, or several that make one character: its text, and an item for each if they are wanted."""

    text: str
    items: list[TokenLogprob] = []


class StopFilter:
    """Holds pieces back for as long as they may be part of a stop sequence."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.hit = False
        """Whether a stop sequence was found: the answer is over."""
        self._stops = [stop for stop in stops if stop]
        self._held: deque[Piece] = deque()

    def push(self, piece: Piece) -> Iterator[Piece]:
        """What may be shown now that this piece has come."""
        if not self._stops:
            yield piece
            return
        self._held.append(piece)
        text = "".join(held.text for held in self._held)
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.hit = True
            yield from self._cut(min(found))
        else:
            yield from self._release(len(text) - self._open_end(text))

    def end(self) -> Iterator[Piece]:
        """The answer is over without one: what was held back is shown."""
        while self._held:
            yield self._held.popleft()

    def _open_end(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop sequence."""
        return max(
            (
                length
                for stop in self._stops
                for length in range(1, min(len(stop), len(text) + 1))
                if text.endswith(stop[:length])
            ),
            default=0,
        )

    def _release(self, characters: int) -> Iterator[Piece]:
        """Whole pieces only, so that items stay with their text."""
        while self._held and len(self._held[0].text) <= characters:
            piece = self._held.popleft()
            characters -= len(piece.text)
            yield piece

    def _cut(self, characters: int) -> Iterator[Piece]:
        """All that is held, the text as far as it goes and an item for each token all the same."""
        while self._held:
            piece = self._held.popleft()
            shown = piece.text[:characters]
            characters -= len(shown)
            yield piece if shown == piece.text else Piece(shown, _cut_items(piece.items, len(shown.encode())))


def _cut_items(items: Sequence[TokenLogprob], size: int) -> list[TokenLogprob]:
    """The items with so many bytes in all. A cut is between characters, so that what is left of a token is text."""
    cut = []
    for item in items:
        shown = bytes(item.bytes or ())[:size]
        size -= len(shown)
        cut.append(structs.replace(item, token=shown.decode("utf-8", "replace"), bytes=list(shown)))
    return cut
