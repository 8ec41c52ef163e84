"""`chatport backup`: the database as it is now, in one file, while servers go on."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from chatport.cli.endings import Ending, end, told
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import load

WHOLE = -1
"""Pages that are copied in one step: all of them, from one state of the database. In WAL mode nobody waits for that;
in several steps, whatever is written in between would make the copy begin anew, and under load it would never end."""

OWN = ("-wal", "-shm", "-journal")
"""What SQLite adds to the database's name for the files beside it."""


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copies the SQLite database into one file, whole and consistent, while servers go on writing.

    The file appears under its name when it is complete, and is readable by you alone: it holds the keys' hashes and
    whatever content is kept. A PostgreSQL database is copied with its own pg_dump.

    Example: `chatport backup /backups/chatport-$(date +%F).db`
    """
    with told():
        url = load(config, os.environ).store_url
    scheme, _, path = url.partition(":///")
    if not scheme.startswith("sqlite"):
        end(Ending.FAILED, "The database is PostgreSQL: copy it with its own program, pg_dump.")
    source = Path(path)
    if not source.is_file():
        end(Ending.STORE, f"There is no database at {source} yet.")
    if is_part_of(source, file):
        end(Ending.FAILED, f"{file} is the database itself; give another name.")
    if file.exists() and not force:
        end(Ending.FAILED, f"{file} is there already; give another name, or --force.")
    try:
        size = copied(source, file, replacing=force)
    except FileExistsError:  # somebody made it meanwhile
        end(Ending.FAILED, f"{file} is there already; give another name, or --force.")
    except (OSError, sqlite3.Error) as error:
        end(Ending.FAILED, f"The copy can't be written: {error}.")
    if as_json:
        print_json({"file": str(file.absolute()), "bytes": size})
    else:
        typer.echo(f"{file}: {size:,} bytes")


def is_part_of(source: Path, file: Path) -> bool:
    """Whether a file is one of the database's own: replaced under a server, all that is written later would be lost."""
    own = (source, *(source.with_name(source.name + ending) for ending in OWN))
    return any(file.resolve() == each.resolve() for each in own)


def copied(source: Path, file: Path, *, replacing: bool) -> int:
    """The copy's size. Raises OSError (FileExistsError where it may not replace one) and sqlite3.Error, and leaves no
    half of one."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.absolute().parent)  # made 0600
    os.close(handle)
    temporary = Path(name)
    try:
        reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
        writing = sqlite3.connect(temporary)
        try:
            reading.backup(writing, pages=WHOLE)
            writing.execute("PRAGMA journal_mode = DELETE")
        finally:
            writing.close()
            reading.close()
        with temporary.open("rb+") as whole:
            os.fsync(whole.fileno())
        if replacing:
            temporary.replace(file)
        else:
            file.hardlink_to(temporary)
        keep_name(file.absolute().parent)
    finally:
        temporary.unlink(missing_ok=True)
    return file.stat().st_size


def keep_name(folder: Path) -> None:
    """A file's name outlives a loss of power once its folder is on the disk; Windows has no such thing."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
