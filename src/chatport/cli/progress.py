"""How far a download is: a bar on a terminal, otherwise a line for every tenth."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from chatport.backends.llama.download import Progress


class Lines:
    """For log files and pipes: stays readable, and short."""

    def __init__(self) -> None:
        self._tenths = -1

    def say(self, sentence: str) -> None:
        typer.echo(sentence, err=True)

    def moved(self, done: int, total: int) -> None:
        tenths = 10 * done // total
        if tenths > self._tenths:
            self._tenths = tenths
            typer.echo(f"{10 * tenths:3d} %  {done / 1e6:.0f} of {total / 1e6:.0f} MB", err=True)


class Bar:
    """For a terminal: a bar with speed and time left, below the sentences."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  only where something is fetched
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self.progress = RichProgress(*columns, console=Console(stderr=True))
        self._task = self.progress.add_task("", visible=False)

    def say(self, sentence: str) -> None:
        self.progress.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def moved(self, done: int, total: int) -> None:
        self.progress.update(self._task, completed=done, total=total, visible=True)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """The kind that suits where stderr goes."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    bar = Bar()
    with bar.progress:
        yield bar
