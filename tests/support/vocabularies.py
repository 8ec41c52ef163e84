"""Vocabularies made to order, without a file."""

from __future__ import annotations

from pathlib import Path

from chatport.backends.llama.gguf import ModelFile
from chatport.backends.llama.vocabulary import Vocabulary


def vocabulary_of(tokenizer: str, *tokens: bytes, types: list[int] | None = None) -> Vocabulary:
    """The vocabulary of a model with these tokens, all of them text unless `types` says otherwise."""
    return Vocabulary(
        ModelFile(
            path=Path("m.gguf"),
            digest="",
            architecture="llama",
            context_length=64,
            chat_template=None,
            tokenizer=tokenizer,
            tokens=list(tokens),
            token_types=types if types is not None else [1] * len(tokens),
            bos_id=None,
            eos_id=None,
        )
    )
