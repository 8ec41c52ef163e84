"""How a command ends: exit codes, which are public, and sentences on stderr instead of tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

import typer

from chatport.backends.llama.catalogue import WeightsError
from chatport.config import ConfigError


class Ending(IntEnum):
    """Exit codes; `docs/cli.md` lists them."""

    OK = 0
    FAILED = 1
    """What was asked for can't be done: no such key, say."""
    USAGE = 2
    """The command line can't be understood."""
    CONFIG = 3
    """The configuration can't be read, or something in it is not allowed."""
    PORT = 4
    """The address can't be listened on: taken, forbidden, not this machine's."""
    MODEL = 5
    """A model can't be had: its file is missing, broken or could not be fetched, or the engine is not installed."""
    STORE = 6
    """The database can't be used."""
    SERVER = 7
    """The server can't be talked to: none answers, it is none of this API, or it does not take the key."""
    INTERRUPTED = 130
    """Ctrl-C, before there was anything to end in good order; `chat` ends so after other signals too."""


def end(ending: Ending, sentence: str) -> NoReturn:
    """Says the sentence on stderr and ends the program."""
    typer.echo(f"error: {sentence}", err=True)
    raise typer.Exit(ending)


@contextmanager
def told() -> Iterator[None]:
    """Ends the program with a sentence for what a person can repair. Anything else is a bug and keeps its traceback."""
    try:
        yield
    except ConfigError as error:
        flags = all(fault.key.startswith("--") for fault in error.faults)
        end(Ending.USAGE if flags else Ending.CONFIG, str(error))
    except WeightsError as error:
        end(Ending.MODEL, str(error))
    except KeyboardInterrupt:
        raise typer.Exit(Ending.INTERRUPTED) from None


@contextmanager
def store_told() -> Iterator[None]:
    """`told` for a command that opens the store, whose parts take a third of a second to import."""
    from chatport.store.errors import StoreError  # noqa: PLC0415

    try:
        yield
    except StoreError as error:
        end(Ending.STORE, str(error))
