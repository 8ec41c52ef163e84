"""Stop sequences: found across the borders of tokens, never leaked, not in part either.

Done here and not by the engine, which loses what it holds back when an answer reaches its limit in the middle of what
might have become a stop sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chatport.backends.llama.tape import Piece, Tape, cut_items, first_of, open_end


class StopFilter:
    """Holds pieces back for as long as they may be part of a stop sequence."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.hit = False
        """Whether a stop sequence was found: the answer is over."""
        self._stops = [stop for stop in stops if stop]
        self._held = Tape()

    def push(self, piece: Piece) -> Iterator[Piece]:
        """What may be shown now that this piece has come."""
        if not self._stops:
            yield piece
            return
        self._held.push(piece)
        text = self._held.text
        at = first_of(text, self._stops)
        if at is None:
            yield from self._held.whole(len(text) - open_end(text, self._stops))
        else:
            self.hit = True
            yield from self._cut(at)

    def end(self) -> Iterator[Piece]:
        """The answer is over without one: what was held back is shown."""
        yield from self._held.rest()

    def _cut(self, characters: int) -> Iterator[Piece]:
        """All that is held, the text as far as it goes and an item for each token all the same."""
        yield from self._held.exactly(characters)
        for piece in self._held.rest():
            if piece.items:
                yield Piece("", cut_items(piece.items, 0))
