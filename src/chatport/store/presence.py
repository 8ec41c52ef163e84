"""Which of the processes over one database file have died.

Each keeps a file beside the database locked for as long as it runs; the system lets go of the lock when the process
ends, however it ends. So nobody has to wait until a silent one may be taken for dead, as over a network.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

if sys.platform != "win32":  # there only time can tell
    import fcntl


WORKER = "worker_"
"""How the names of processes begin; any other file is not ours."""


class Presence(Protocol):
    """Every method is harmless where it can't do its work: then time has to tell."""

    def enter(self, name: str) -> None:
        """This process lives under this name, until it ends or leaves."""
        ...

    def leave(self, name: str) -> None:
        """It ends in order. Also removes what one that died has left."""
        ...

    def dead(self) -> list[str]:
        """Names of processes that have died without leaving."""
        ...


class Nowhere:
    """Where only time can tell."""

    def enter(self, name: str) -> None:
        pass

    def leave(self, name: str) -> None:
        pass

    def dead(self) -> list[str]:
        return []


class LockedFiles:
    """A file for each process, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locked: dict[str, int] = {}

    def enter(self, name: str) -> None:
        unseen = self._folder / f".{name}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._locked[name] = os.open(unseen, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._locked[name], fcntl.LOCK_EX | fcntl.LOCK_NB)
            unseen.rename(self._folder / name)  # only now may others look whether it is locked
        except OSError:  # a disk without locks, say
            with suppress(OSError):
                unseen.unlink()

    def leave(self, name: str) -> None:
        for left in (name, f".{name}"):
            with suppress(OSError):
                (self._folder / left).unlink()
        with suppress(OSError):
            self._folder.rmdir()
        if name in self._locked:
            os.close(self._locked.pop(name))

    def dead(self) -> list[str]:
        try:
            names = [path.name for path in self._folder.iterdir() if path.name.startswith(WORKER)]
        except OSError:
            return []
        return [name for name in names if name not in self._locked and self._is_free(name)]

    def _is_free(self, name: str) -> bool:
        try:
            descriptor = os.open(self._folder / name, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


def beside(path: Path) -> Presence:
    """For those who share the database in this file."""
    path = path.resolve()
    return Nowhere() if sys.platform == "win32" else LockedFiles(path.with_name(f"{path.name}-workers"))
