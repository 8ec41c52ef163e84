"""Texts that a regular expression matches: found by reading it, proved here by running it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.scripted.matching import TooMuch, Unmet, text_matching

PATTERNS = [
    "",
    "abc",
    "^[a-z]+$",
    "^[A-Z]{2}-\\d{4}$",
    "[0-9]+",
    "^(yes|no)$",
    "a|b",
    "^.{3}$",
    "[^a]",
    "[^\\w\\s]",
    "^\\+?[1-9]\\d{1,14}$",
    "^(?:a(b)?c)*?d$",
    "^\\S+@\\S+\\.\\S+$",
    "^#[0-9a-fA-F]{6}$",
    "^\\d{3}-\\d{2}-\\d{4}$",
    "[一-龥]+",
    "^\\W\\D\\s$",
    "(?i)^ABC$",
    "^[^\\x00-\\x7f]$",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_text_matches(pattern: str) -> None:
    assert re.fullmatch(pattern, text_matching(pattern)) is not None


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 3), (5, 5), (5, 100)])
def test_the_length_is_kept(low: int, high: int) -> None:
    text = text_matching("^[a-z]*$", low, high)
    assert low <= len(text) <= high
    assert re.fullmatch("[a-z]*", text)


@pytest.mark.parametrize(
    "pattern", ["(", "a(?=b)", "(a)\\1", "\\bword\\b", "a^b", "a$b", "[^\\s\\S]", "[\\ud800]", "(" * 5000 + ")" * 5000]
)
def test_what_is_beyond_it_is_unmet(pattern: str) -> None:
    with pytest.raises(Unmet):
        text_matching(pattern)


def test_a_length_that_the_pattern_forbids_is_unmet() -> None:
    with pytest.raises(Unmet):
        text_matching("^a{3}$", 4)


@pytest.mark.parametrize("pattern", ["a{30000}", "((a{1000}){1000}){1000}", "^(()?){4000000000}b"])
def test_work_is_bounded(pattern: str) -> None:
    with pytest.raises(TooMuch):
        text_matching(pattern)


ATOMS = st.sampled_from(["a", "\\d", "[b-y]", "[^b]", ".", "\\.", "(x|y)", "(?:pq)"])
REPEATS = st.sampled_from(["", "?", "*", "+", "{2}", "{1,3}", "*?"])


@given(parts=st.lists(st.tuples(ATOMS, REPEATS), max_size=6), bounds=st.booleans())
def test_any_plain_pattern_is_met(parts: list[tuple[str, str]], bounds: bool) -> None:
    pattern = "".join(atom + repeat for atom, repeat in parts)
    pattern = f"^{pattern}$" if bounds else pattern
    assert re.search(pattern, text_matching(pattern)) is not None
