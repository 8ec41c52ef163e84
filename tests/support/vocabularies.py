"""Vocabularies made to order, without a file."""

from __future__ import annotations

from pathlib import Path

from chatport.backends.llama.gguf import ModelFile
from chatport.backends.llama.vocabulary import Vocabulary


def model_of(
    tokenizer: str, *tokens: bytes, types: list[int] | None = None, chat_template: str | None = None
) -> ModelFile:
    """What the file of a model with these tokens says, all of them text unless `types` says otherwise."""
    return ModelFile(
        path=Path("m.gguf"),
        digest="",
        architecture="llama",
        context_length=64,
        chat_template=chat_template,
        tokenizer=tokenizer,
        tokens=list(tokens),
        token_types=types if types is not None else [1] * len(tokens),
        bos_id=None,
        eos_id=None,
    )


def vocabulary_of(tokenizer: str, *tokens: bytes, types: list[int] | None = None) -> Vocabulary:
    """The vocabulary of such a model."""
    return Vocabulary(model_of(tokenizer, *tokens, types=types))
