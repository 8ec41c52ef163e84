"""Stop sequences over the borders of tokens."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.stops import StopFilter
from chatport.backends.llama.tape import Piece
from chatport.wire.chat import TokenLogprob


def item(content: bytes) -> TokenLogprob:
    return TokenLogprob(token=content.decode("utf-8", "replace"), logprob=-1.0, bytes=list(content))


def shown(stops: list[str], *pieces: str) -> tuple[list[str], bool]:
    """What is shown of these pieces, one by one, and whether a stop was hit."""
    stop = StopFilter(stops)
    said: list[str] = []
    for piece in pieces:
        said += [out.text for out in stop.push(Piece(piece))]
        if stop.hit:
            return said, True
    return said + [out.text for out in stop.end()], False


def test_without_stops_everything_passes_at_once() -> None:
    stop = StopFilter([])
    assert [piece.text for piece in stop.push(Piece("a"))] == ["a"]


@pytest.mark.parametrize(
    ("stops", "pieces", "expected", "hit"),
    [
        (["END"], ["one ", "END", " two"], ["one "], True),
        (["END"], ["one E", "N", "D two"], ["one "], True),
        (["END"], ["one E", "N", "ough"], ["one E", "N", "ough"], False),
        (["END"], ["the E", "N"], ["the E", "N"], False),
        (["b", "ab"], ["xab"], ["x"], True),
        (["aab"], ["aa", "ab"], ["a"], True),
        (["\n\n"], ["a\n", "b\n\nc"], ["a\n", "b"], True),
        (["🎉!"], ["so 🎉", "!"], ["so "], True),
        (["", "x"], ["abc"], ["abc"], False),
    ],
)
def test_what_is_shown(stops: list[str], pieces: list[str], expected: list[str], hit: bool) -> None:
    assert shown(stops, *pieces) == (expected, hit)


def test_what_cannot_become_a_stop_is_not_held_back() -> None:
    stop = StopFilter(["END"])
    assert [piece.text for piece in stop.push(Piece("hello "))] == ["hello "]
    assert [piece.text for piece in stop.push(Piece("E"))] == []
    assert [piece.text for piece in stop.push(Piece("x"))] == ["E", "x"]


def test_items_stay_with_their_text_and_none_is_lost() -> None:
    stop = StopFilter(["END"])
    assert list(stop.push(Piece("go E", [item(b"go E")]))) == []
    first, second = stop.push(Piece("ND", [item(b"ND")]))
    assert (first.text, [bytes(i.bytes or ()) for i in first.items]) == ("go ", [b"go "])
    assert (second.text, [(i.token, i.bytes) for i in second.items]) == ("", [("", [])])


def test_a_cut_within_a_piece_of_several_tokens() -> None:
    stop = StopFilter(["!"])
    piece = Piece("🎉! ", [item(b"\xf0\x9f"), item(b"\x8e\x89"), item(b"! ")])
    (cut,) = stop.push(piece)
    assert cut.text == "🎉"
    assert [bytes(i.bytes or ()) for i in cut.items] == [b"\xf0\x9f", b"\x8e\x89", b""]


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=4), st.data())
def test_any_split_shows_the_text_before_the_first_stop(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    pieces = [text[a:b] for a, b in itertools.pairwise(cuts)]
    said, hit = shown(stops, *pieces)
    # The stop that is complete first ends the answer, wherever a longer one might have begun.
    seen = next((text[:end] for end in cuts if any(stop in text[:end] for stop in stops)), None)
    assert hit is (seen is not None)
    whole = text if seen is None else seen[: min(at for stop in stops if (at := seen.find(stop)) >= 0)]
    assert "".join(said) == whole
