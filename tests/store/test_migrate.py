"""Migrations lead to the schema, once, on both databases."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from chatport.store import open_store
from chatport.store.database import Database
from chatport.store.errors import StoreIncompatible
from chatport.store.migrate import MIGRATIONS, create, migrate, revision, upgrade
from chatport.store.schema import HEAD, metadata


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def rows(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    return {name: [tuple(row) for row in connection.execute(table.select())] for name, table in metadata.tables.items()}


def upgrade_from_nothing(connection: Connection) -> None:
    upgrade(connection, None)


@pytest.mark.parametrize("way", [create, upgrade_from_nothing])
async def test_both_ways_lead_to_the_schema(database: Database, way: Callable[[Connection], None]) -> None:
    await database.write(way)
    assert await database.read(differences) == []
    assert await database.read(revision) == HEAD
    assert {name: found for name, found in (await database.read(rows)).items() if found} == {
        "alembic_version": [(HEAD,)],
        "revisions": [("keys", 0), ("ledger", 0), ("usage", 0)],
    }


async def test_the_comparison_would_see_a_difference(database: Database) -> None:
    await database.write(migrate)
    await database.write(lambda connection: connection.execute(text("DROP INDEX replays_created_at")).close())
    assert len(await database.read(differences)) == 1


async def test_an_empty_database_has_no_revision(database: Database) -> None:
    assert await database.read(revision) is None


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await database.write(migrate)
    await database.write(migrate)
    assert await database.read(revision) == HEAD


@pytest.mark.parametrize("way", [create, upgrade_from_nothing])
async def test_sqlite_keeps_holds_in_one_tree(database: Database, way: Callable[[Connection], None]) -> None:
    await database.write(way)

    def without_rowid(connection: Connection) -> bool:
        if connection.dialect.name != "sqlite":
            pytest.skip("only SQLite keeps a key's index beside its table")
        statement = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'holds'")).scalar_one()
        return str(statement).rstrip().endswith("WITHOUT ROWID")

    assert await database.read(without_rowid)


async def test_holds_outlive_the_migration_that_moves_them(database: Database) -> None:
    row = {"id": "req_1", "worker": "worker_1", "at": 1, "account": b"{}", "prompt": 7, "completion": 9}

    def older(connection: Connection) -> None:
        upgrade(connection, None, "0003")
        connection.execute(
            text("INSERT INTO holds VALUES (:id, :worker, :at, :account, :prompt, :completion)"), row
        ).close()

    await database.write(older)
    await database.write(migrate)
    assert (await database.read(rows))["holds"] == [tuple(row.values())]


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


async def test_a_newer_database_is_refused_with_a_sentence(empty_url: str) -> None:
    async with open_store(empty_url):
        pass
    await forge_revision(empty_url, "9999")
    with pytest.raises(StoreIncompatible, match=r"newer Chatport .*9999.*0004"):
        async with open_store(empty_url):
            pass


async def forge_revision(url: str, number: str) -> None:
    async with open_store(url) as store:
        await store._database.write(
            lambda connection: connection.execute(
                text("UPDATE alembic_version SET version_num = :number"), {"number": number}
            ).close()
        )


async def test_many_processes_may_open_a_new_database_at_once(empty_url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from chatport.store import open_store\n"
        "async def main():\n"
        "    async with open_store(sys.argv[1]) as store:\n"
        "        print((await store.revisions.current())['keys'])\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, empty_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    answers = await asyncio.gather(*(process.communicate() for process in processes))
    assert [(out.strip(), err.decode()) for out, err in answers] == [(b"0", "")] * 4


def test_a_database_that_is_new_or_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from chatport.store import open_store\n"
        "async def main():\n"
        "    async with open_store(sys.argv[1]):\n"
        "        print('alembic' in sys.modules)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/once.db"]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)]
    assert runs == ["False", "False"]
