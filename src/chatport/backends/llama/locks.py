"""One process at a time for a file: a lock that ends with its process, however that ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.download import Progress, disk_errors


@contextmanager
def one_at_a_time(lock: Path, progress: Progress) -> Iterator[None]:
    """Holds the lock file, waiting for another process that does. Raises WeightsError."""
    with disk_errors(lock):
        file = lock.open("wb")
    with file:
        if not _try_lock(file):
            progress.say("Another process is fetching this model: waiting for it.")
            _wait_for_lock(file)
        yield


@contextmanager
def undisturbed(lock: Path, name: str) -> Iterator[None]:
    """Holds the lock file where there is one. Raises WeightsError where a process that fetches `name` holds it."""
    if not lock.exists():
        yield
        return
    with disk_errors(lock):
        file = lock.open("wb")
    with file:
        if not _try_lock(file):
            raise WeightsError(f"Another process is fetching {name} just now. End it first, or let it finish.")
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_for_lock(file: IO[bytes]) -> None:
        while not _try_lock(file):
            time.sleep(0.5)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_for_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
