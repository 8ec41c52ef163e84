"""What a GGUF file says of itself: a reader of its head, so that a broken file gets a sentence and not a crash.

The engine reads the file too, but tells neither the chat template nor the tokens' bytes, and of a file that it can't
load it says no more than that. Only the head is read (metadata and the list of tensors, a few MB), never the weights.

Source: the GGUF specification of ggml, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import hashlib
import mmap
import stat
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias, overload

from msgspec import Struct

from chatport.backends.llama.catalogue import WeightsError

Value: TypeAlias = "int | float | bool | bytes | Strings | list[Value]"

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)

NUMBERS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""Types of a value that have one size."""
STRING, ARRAY = 8, 9
MERGES: Final = "tokenizer.ggml.merges"
"""As long as the vocabulary, and of use to the engine alone."""

MAX_ITEMS = 4_000_000
"""Entries of one array or list: ten times the largest vocabulary of today. What says more is no model."""
MAX_TENSOR_DIMENSIONS = 8
MAX_ARRAY_DEPTH = 4
CACHE_NUMBER: Final = 2
"""Bytes of one number in the engine's cache."""
TAIL = 65_536
"""Bytes at the end of the file that count for its digest, beside head and size: reading all of it takes too long."""


class ModelFileError(WeightsError):
    """The model can't be loaded from this file; the message is a sentence that names the file and the reason."""


class Strings(Sequence[bytes]):
    """A list of strings in two objects: one object for each token would take three times the memory, for as long as the
    model is there (2.4 MB instead of 0.7 for 49,152 tokens)."""

    def __init__(self, strings: Iterable[bytes]) -> None:
        joined = bytearray()
        self._ends = array("Q", [0])
        for string in strings:
            joined += string
            self._ends.append(len(joined))
        self._joined = bytes(joined)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[bytes]:
        return (self._joined[start:end] for start, end in pairwise(self._ends))

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self._joined[self._ends[at] : self._ends[at + 1]]


class ModelFile(Struct, frozen=True, kw_only=True):
    """What the program needs to know of a model before the engine has it."""

    path: Path
    digest: str
    """Hex; the same file has the same one on every machine."""
    architecture: str
    context_length: int
    """Tokens that the model was trained to look back on."""
    chat_template: str | None
    tokenizer: str
    """The family of the tokenizer: `gpt2` (bytes spelled as letters), `llama` (SentencePiece), …"""
    tokens: Sequence[bytes]
    """The vocabulary as the file spells it, by token id."""
    token_types: list[int]
    """llama.cpp's `llama_token_type`, by token id."""
    bos_id: int | None
    eos_id: int | None
    token_memory: int = 0
    """Bytes that the engine's cache takes for each token of the window; 0 where the file does not tell."""


def read(path: Path) -> ModelFile:
    """Reads the head of a GGUF file. Raises ModelFileError."""
    try:
        _refuse_what_is_no_file(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, data)
    except FileNotFoundError as exc:
        raise ModelFileError(f"There is no model file {path}.") from exc
    except (OSError, ValueError) as exc:
        raise ModelFileError(f"{path} can't be read as a GGUF file: {exc}.") from exc


def _refuse_what_is_no_file(path: Path) -> None:
    """Before it is opened: opening a pipe waits for somebody who writes."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ModelFileError(f"{path} is no regular file; a GGUF file was expected.")
    if found.st_size == 0:
        raise ModelFileError(f"{path} is empty; a GGUF file was expected.")


def _read(path: Path, data: mmap.mmap) -> ModelFile:
    if data[:4] != MAGIC:
        raise ModelFileError(f"{path} is not a GGUF file: it begins with {data[:4]!r}, not with {MAGIC!r}.")
    try:
        head = _Cursor(data)
        metadata, weights_end = _head(head)
        if weights_end > len(data):
            raise EOFError
    except (EOFError, struct.error) as exc:
        raise ModelFileError(
            f"{path} is cut short: it has {len(data)} bytes and promises more. Fetch it again."
        ) from exc
    except _Malformed as exc:
        raise ModelFileError(f"{path} is a broken GGUF file: {exc}.") from exc
    return _described(path, metadata, _digest(data, head.at))


def _described(path: Path, metadata: dict[str, Value], digest: str) -> ModelFile:
    architecture = _text(metadata, "general.architecture")
    context = metadata.get(f"{architecture}.context_length")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if architecture is None or not isinstance(context, int) or not isinstance(tokens, Strings):
        raise ModelFileError(f"{path} is no language model: architecture, context length or vocabulary are missing.")
    types = metadata.get("tokenizer.ggml.token_type")
    return ModelFile(
        path=path,
        digest=digest,
        architecture=architecture,
        context_length=context,
        chat_template=_text(metadata, "tokenizer.chat_template"),
        tokenizer=_text(metadata, "tokenizer.ggml.model") or "",
        tokens=tokens,
        token_types=[kind for kind in types if isinstance(kind, int)] if isinstance(types, list) else [],
        bos_id=_number(metadata, "tokenizer.ggml.bos_token_id"),
        eos_id=_number(metadata, "tokenizer.ggml.eos_token_id"),
        token_memory=_token_memory(metadata, architecture),
    )


def _token_memory(metadata: dict[str, Value], architecture: str) -> int:
    """A key and a value for each head that has one, in each layer, in 16-bit numbers."""
    layers = _number(metadata, f"{architecture}.block_count") or 0
    attention = f"{architecture}.attention"
    heads = metadata.get(f"{attention}.head_count_kv", metadata.get(f"{attention}.head_count"))
    counts = [n for n in heads if isinstance(n, int)] if isinstance(heads, list) else [heads] * layers
    width = (_number(metadata, f"{architecture}.embedding_length") or 0) // (
        _number(metadata, f"{attention}.head_count") or 1
    )
    key = _number(metadata, f"{attention}.key_length") or width
    value = _number(metadata, f"{attention}.value_length") or width
    return sum(n for n in counts if isinstance(n, int)) * (key + value) * CACHE_NUMBER


def _text(metadata: dict[str, Value], key: str) -> str | None:
    value = metadata.get(key)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None


def _number(metadata: dict[str, Value], key: str) -> int | None:
    value = metadata.get(key)
    return value if isinstance(value, int) else None


def _digest(data: mmap.mmap, head: int) -> str:
    with memoryview(data) as view:  # a slice of the file itself would be a copy of the whole head
        digest = hashlib.sha256(view[:head])
        digest.update(view[max(head, len(data) - TAIL) :])
    digest.update(str(len(data)).encode())
    return digest.hexdigest()


class _Malformed(Exception):
    """The bytes can't mean what their place says."""


def _head(head: _Cursor) -> tuple[dict[str, Value], int]:
    """The metadata, and where the last tensor begins: no complete file is shorter than that."""
    head.at = len(MAGIC)
    version = head.number(4)
    if version not in VERSIONS:
        raise _Malformed(f"its version is {version}, known are {VERSIONS[0]} and {VERSIONS[1]}")
    tensors, entries = head.count(), head.count()
    metadata: dict[str, Value] = {}
    for _ in range(entries):
        key, kind = head.string().decode("utf-8", "replace"), head.number(4)
        if key == MERGES:
            head.pass_strings()
        else:
            metadata[key] = head.value(kind)
    last = max((_tensor_offset(head) for _ in range(tensors)), default=0)
    return metadata, head.at + last


def _tensor_offset(head: _Cursor) -> int:
    """Skips one tensor's description; where its data begins, counted from the end of the head."""
    head.string()
    dimensions = head.number(4)
    if dimensions > MAX_TENSOR_DIMENSIONS:
        raise _Malformed(f"a tensor has {dimensions} dimensions")
    head.at += 8 * dimensions + 4
    return head.number(10)


class _Cursor:
    """A place in the file. Raises struct.error or EOFError where the file ends too early."""

    def __init__(self, data: mmap.mmap) -> None:
        self.at = 0
        self._data = data
        self._size = len(data)

    def number(self, kind: int) -> int:
        value = self._plain(kind)
        return int(value)

    def count(self) -> int:
        """How many of something follow; bounded, so that a broken file costs neither memory nor time."""
        count = self.number(10)
        if count > MAX_ITEMS:
            raise _Malformed(f"it promises {count} entries in one list")
        return count

    def string(self) -> bytes:
        length = self.number(10)
        start, self.at = self.at, self.at + length
        if self.at > self._size:
            raise EOFError
        return self._data[start : self.at]

    def pass_strings(self) -> None:
        """Goes on behind a list of strings, without taking them into memory."""
        if self.number(4) != STRING:
            raise _Malformed(f"{MERGES} is no list of strings")
        for _ in range(self.count()):
            length = self.number(10)
            self.at += length

    def value(self, kind: int, depth: int = 0) -> Value:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self._array(depth + 1)
        return self._plain(kind)

    def _array(self, depth: int) -> Strings | list[Value]:
        kind, count = self.number(4), self.count()
        if depth > MAX_ARRAY_DEPTH:
            raise _Malformed("its lists are nested too deep")
        if kind == STRING:
            return Strings(self.string() for _ in range(count))
        if kind not in NUMBERS:
            return [self.value(kind, depth) for _ in range(count)]
        form = struct.Struct(f"<{count}{NUMBERS[kind].format[1:]}")
        start, self.at = self.at, self.at + form.size
        return list(form.unpack_from(self._data, start))

    def _plain(self, kind: int) -> int | float | bool:
        form = NUMBERS.get(kind)
        if form is None:
            raise _Malformed(f"it has a value of the unknown type {kind}")
        start, self.at = self.at, self.at + form.size
        value: int | float | bool = form.unpack_from(self._data, start)[0]
        return value
