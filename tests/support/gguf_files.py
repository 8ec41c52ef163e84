"""Small GGUF files made to order: what a head says is up to the test, and there are no weights."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

HEAD: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 64,
    "tokenizer.chat_template": CHATML,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<unk>", "<|im_start|>", "<|im_end|>", "a", "b", "Ġc", "Ł"],
    "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
"""What the smallest language model says of itself."""


def gguf(head: Mapping[str, Any] | None = None, *, version: int = 3, tensors: int = 0, weights: int = 0) -> bytes:
    """A file with this head; `tensors` of 32 bytes each are promised, `weights` bytes follow."""
    entries = HEAD if head is None else head
    described = b"".join(string(f"t{n}") + struct.pack("<IQIQ", 1, 8, 0, 32 * n) for n in range(tensors))
    return (
        b"GGUF"
        + struct.pack("<IQQ", version, tensors, len(entries))
        + b"".join(string(key) + value(entry) for key, entry in entries.items())
        + described
        + bytes(weights)
    )


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(entry: Any) -> bytes:
    match entry:
        case bool():
            return struct.pack("<I?", 7, entry)
        case int():
            return struct.pack("<Ii", 5, entry)
        case float():
            return struct.pack("<If", 6, entry)
        case str():
            return struct.pack("<I", 8) + string(entry)
        case bytes():
            return entry
    return struct.pack("<I", 9) + _array(entry)


def _array(items: Sequence[Any]) -> bytes:
    kind = struct.unpack("<I", value(items[0])[:4])[0] if items else 5
    return struct.pack("<IQ", kind, len(items)) + b"".join(value(item)[4:] for item in items)
