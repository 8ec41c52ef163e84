"""Spans of time on the command line."""

from __future__ import annotations

import pytest
import typer

from chatport.cli.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("8w", 4_838_400), (" 1s ", 1)],
)
def test_what_is_one(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "d", "0d", "-1d", "1.5h", "1y", "1 d", "1d2h", "36501d", "9999999999w", "١d"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 90s, 15m, 12h, 30d or 8w"):
        seconds_of(text)
