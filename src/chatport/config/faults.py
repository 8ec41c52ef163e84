"""What can be wrong with a configuration, told so that the reader can go to the place and repair it."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec import Struct

QUOTE_LIMIT = 64
"""Characters of an offending value that a sentence repeats, as everywhere in the program."""


def quote(value: object) -> str:
    """The value as the file would spell it, near enough, cut to `QUOTE_LIMIT` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= QUOTE_LIMIT else text[: QUOTE_LIMIT - 1] + "…"


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that is wrong: where, and a sentence that says what was given and what is allowed."""

    file: Path | None = None
    """None where the fault is in a flag or a variable of the environment."""
    line: int | None = None
    """Counted from 1; None where the fault has no line (the file can't be opened, say)."""
    key: str = ""
    """Path of the key, `models[0].slots`; the flag or the variable; empty where the whole file is meant."""
    sentence: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return ": ".join(part for part in (place, self.key, self.sentence) if part)


class ConfigError(Exception):
    """The configuration can't be used. Its text is one line a fault, in the order of the file."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults
