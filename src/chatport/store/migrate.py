"""Brings a database to the newest schema, once, whichever process comes first.

Alembic keeps the list (`migrations/versions/`; a released one is never edited) and costs 170 ms and 11 MB to import, so
it is imported only where a database is behind. An empty one gets the newest schema at once; a test holds that both ways
lead to the same.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from chatport.store.errors import StoreIncompatible
from chatport.store.schema import FIRST_ROWS, HEAD, metadata

MIGRATIONS = Path(__file__).parent / "migrations"

LOCK = int.from_bytes(b"chatport")
"""Of PostgreSQL's advisory locks, the one that whoever migrates holds. SQLite's own write lock does the same."""


def revision(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def migrate(connection: Connection) -> None:
    """Brings the database to the newest schema, in the caller's transaction. Raises StoreIncompatible."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    found = revision(connection)
    if found == HEAD:  # another process was faster
        return
    if found is None:
        create(connection)
    else:
        upgrade(connection, found)


def create(connection: Connection) -> None:
    """The newest schema in an empty database."""
    metadata.create_all(connection)
    for table, row in FIRST_ROWS:
        connection.execute(table.insert().values(row))


def upgrade(connection: Connection, found: str | None, to: str = HEAD) -> None:
    """The migrations that follow the revision found, all of them for None. Raises StoreIncompatible."""
    # Imported here: only a database that is behind pays for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreIncompatible(
            f"The database was written by a newer Chatport (its schema is {found}, this version knows up to {HEAD}). "
            "Start the newer version, or give this one another database."
        )
    command.upgrade(config, to)
