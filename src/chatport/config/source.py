"""The file as it is written: its values, the line of every key, and `${VARIABLES}` filled in.

tomllib says no line of a value that it could read and we can't use, so a small scan finds the keys' lines. It runs on
text that tomllib has accepted, and needs to know no more of TOML than where a key, a string and a statement end.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from chatport.config.faults import ConfigError, Fault, quote

KeyPath = tuple[str | int, ...]
"""Where a value stands: `("models", 0, "slots")`."""

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_DOTTED = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_DOTTED})[ \t]*\]")
_KEY = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_TOKEN = re.compile(
    r'''
    """(?:\\.|[^\\])*?"""   |   \'{3}.*?\'{3}     # strings of several lines
    | "(?:\\.|[^"\\\n])*"   |   '[^'\n]*'         # strings of one
    | \#[^\n]*                                   # a comment
    | [\[\]{}\n]
    ''',
    re.DOTALL | re.VERBOSE,
)
_REFERENCE = re.compile(r"\$(\$)?\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SYNTAX_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


class Substituted(str):
    """A string that a variable went into. It may be a secret: messages quote `written`, the text of the file."""

    written: str

    def __new__(cls, value: str, written: str) -> Substituted:
        text = super().__new__(cls, value)
        text.written = written
        return text


class Source(Struct, frozen=True):
    """A file that was read; for no file at all, empty."""

    file: Path | None
    values: dict[str, Any]
    lines: dict[KeyPath, int]

    def fault(self, path: KeyPath, sentence: str) -> Fault:
        """The fault at a key; a key without a line of its own stands where its table begins."""
        near = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.lines), ())
        return Fault(file=self.file, line=self.lines.get(near), key=spelled(path), sentence=sentence)


def spelled(path: KeyPath) -> str:
    """`models[0].slots`"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def read(file: Path | None, environ: Mapping[str, str]) -> Source:
    """Raises ConfigError when the file can't be opened, is no TOML, or names a variable that is not set."""
    if file is None:
        return Source(None, {}, {})
    text = _text(file)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_fault(file, text, error)) from error
    source = Source(file, values, dict(key_lines(text)))
    faults: list[Fault] = []
    filled = _fill(values, (), environ, source, faults)
    if faults:
        raise ConfigError(*faults)
    return Source(file, filled, source.lines)


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(Fault(file=file, sentence=f"can't be read: {reason}.")) from error
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(Fault(file=file, line=line, sentence="is not UTF-8 text, as TOML has to be.")) from error


def _syntax_fault(file: Path, text: str, error: tomllib.TOMLDecodeError) -> Fault:
    at = _SYNTAX_LINE.search(str(error))
    line = int(at[1]) if at else text.count("\n") + 1
    what = _SYNTAX_LINE.sub("", str(error)).removesuffix(" (at end of document)")
    hint = "Strings stand in quotes, lists in [ ], and each key is given once."
    return Fault(file=file, line=line, sentence=f"is not TOML: {what}. {hint}")


def key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Each key and table header of a valid TOML text with its line, counted from 1. Keys inside `{ }` have none."""
    table: KeyPath = ()
    seen: Counter[KeyPath] = Counter()
    at = 0
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        found = _HEADER.match(text, at) or _KEY.match(text, at)
        if found is None:
            at = _statement_end(text, at)
            continue
        if found.re is _HEADER:
            table = _resolved(_parts(found[2]), seen)
            if found[1] == "[[":
                seen[table] += 1
                table = (*table, seen[table] - 1)
            yield table, line
        else:
            yield (*table, *_parts(found[1])), line
        at = _statement_end(text, found.end())


def _resolved(parts: list[str], seen: Counter[KeyPath]) -> KeyPath:
    """The path of a header: what is below an array of tables is below its last one."""
    path: KeyPath = ()
    for part in parts[:-1]:
        path = (*path, part)
        if path in seen:
            path = (*path, seen[path] - 1)
    return (*path, parts[-1])


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_PART, dotted)]


def _statement_end(text: str, start: int) -> int:
    """Behind the line break that ends the statement: one that is in no string, comment or bracket."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth = max(0, depth - 1)
            case "\n" if depth == 0:
                return token.end()
    return len(text)


def _fill(value: Any, path: KeyPath, environ: Mapping[str, str], source: Source, faults: list[Fault]) -> Any:
    """The value with its strings' variables filled in; what is wrong with them is added to `faults`."""
    if isinstance(value, dict):
        return {key: _fill(item, (*path, key), environ, source, faults) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, (*path, index), environ, source, faults) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    wrong = [source.fault(path, sentence) for sentence in _bad_references(value, environ)]
    if wrong:
        faults += wrong
        return value
    filled = _REFERENCE.sub(lambda found: found[0][1:] if found[1] else environ[found[2]], value)
    return Substituted(filled, value)


def _bad_references(text: str, environ: Mapping[str, str]) -> Iterator[str]:
    for escaped, name, closed in _REFERENCE.findall(text):
        if escaped:
            continue
        if not closed or not _VARIABLE.match(name):
            yield f'{quote(text)} holds a "${{" that begins no ${{VARIABLE}}; for the two characters write "$${{".'
        elif name not in environ:
            yield f"the environment variable {name} is not set; set it, or write the value itself."
