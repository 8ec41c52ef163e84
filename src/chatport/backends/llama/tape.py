"""What a model has written and nobody has read yet: pieces in a row, read as text, taken off in any length."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from msgspec import Struct, structs

from chatport.wire.chat import TokenLogprob


class Piece(Struct, frozen=True):
    """What one token adds, or several that make one character: its text, and an item for each if they are wanted."""

    text: str
    items: list[TokenLogprob] = []


class Tape:
    """Pieces come at its end and are taken at its beginning."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self._pieces)

    def push(self, piece: Piece) -> None:
        self._pieces.append(piece)

    def put_back(self, text: str) -> None:
        """What was taken, at the beginning again."""
        self._pieces.appendleft(Piece(text))

    def whole(self, characters: int) -> Iterator[Piece]:
        """Takes the pieces that lie within so many characters, whole, so that items stay with their text."""
        while self._pieces and len(self._pieces[0].text) <= characters:
            piece = self._pieces.popleft()
            characters -= len(piece.text)
            yield piece

    def exactly(self, characters: int) -> Iterator[Piece]:
        """Takes so many characters. A token on the border leaves its item here, with the bytes that are taken."""
        for piece in self.whole(characters):
            characters -= len(piece.text)
            yield piece
        if self._pieces and characters:
            piece = self._pieces.popleft()
            shown = piece.text[:characters]
            self._pieces.appendleft(Piece(piece.text[characters:]))
            yield Piece(shown, cut_items(piece.items, len(shown.encode())))

    def rest(self) -> Iterator[Piece]:
        """Takes all that is there."""
        while self._pieces:
            yield self._pieces.popleft()


def open_end(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of one of the marks."""
    return max(
        (
            length
            for mark in marks
            for length in range(1, min(len(mark), len(text) + 1))
            if text.endswith(mark[:length])
        ),
        default=0,
    )


def first_of(text: str, marks: Sequence[str]) -> int | None:
    """Where the first of the marks begins; None where there is none."""
    return min((at for mark in marks if (at := text.find(mark)) >= 0), default=None)


def cut_items(items: Sequence[TokenLogprob], size: int) -> list[TokenLogprob]:
    """The items with so many bytes in all. A cut is between characters, so that what is left of a token is text."""
    cut = []
    for item in items:
        shown = bytes(item.bytes or ())[:size]
        size -= len(shown)
        cut.append(structs.replace(item, token=shown.decode("utf-8", "replace"), bytes=list(shown)))
    return cut
