"""Spans of time as they are typed: `90s`, `15m`, `12h`, `30d`, `8w`."""

from __future__ import annotations

import re

import typer

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST = 100 * 365 * 86_400

_span = re.compile(r"([1-9][0-9]{0,9})([smhdw])")


def seconds_of(text: str) -> int:
    """A typer parser. Raises BadParameter, which says what is allowed."""
    found = _span.fullmatch(text.strip())
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST:
        raise typer.BadParameter(f"{text!r} is no span of time; write 90s, 15m, 12h, 30d or 8w, up to 100 years.")
    return seconds
