"""Pieces taken off in any length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.tape import Piece, Tape, first_of, open_end
from chatport.wire.chat import TokenLogprob


def tape_of(*texts: str) -> Tape:
    tape = Tape()
    for text in texts:
        tape.push(Piece(text, [TokenLogprob(token=text, logprob=-1.0, bytes=list(text.encode()))]))
    return tape


@given(st.lists(st.text(max_size=4), max_size=6), st.data())
def test_what_is_taken_and_what_is_left_is_all_there_was(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts)
    characters = data.draw(st.integers(0, len(whole)))
    tape = tape_of(*texts)
    taken = list(tape.exactly(characters))
    assert "".join(piece.text for piece in taken) == whole[:characters]
    assert tape.text == whole[characters:]
    items = [item for piece in taken for item in piece.items]
    assert b"".join(bytes(item.bytes or ()) for item in items) == whole[:characters].encode()


def test_whole_pieces_only() -> None:
    tape = tape_of("one", "two")
    assert [piece.text for piece in tape.whole(5)] == ["one"]
    assert tape.text == "two"
    tape.put_back("and ")
    assert tape.text == "and two"


def test_marks_in_a_text() -> None:
    assert first_of("a<b<<c", ["<<", "<c"]) == 3
    assert first_of("abc", ["x"]) is None
    assert open_end("abc<to", ["<tool>", "c<x"]) == 3
    assert open_end("abc", ["x"]) == 0
    assert open_end("abc", []) == 0
