"""Who lives is seen by what it keeps locked; who has died, at once."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from chatport.store import open_store
from chatport.store.presence import LockedFiles, Nowhere
from support.accounts import ledger_over, rows
from support.postings import begin

DIES = """
import sys, time
from pathlib import Path
from chatport.store.presence import LockedFiles
LockedFiles(Path(sys.argv[1])).enter("worker_2")
print("in", flush=True)
time.sleep(60)
"""


async def test_who_was_killed_is_dead_at_once_and_nobody_else(tmp_path: Path) -> None:
    here = LockedFiles(tmp_path / "w")
    here.enter("worker_1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES, str(tmp_path / "w"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"in\n"
    assert here.dead() == []
    process.kill()
    await process.wait()
    assert here.dead() == ["worker_2"]
    assert LockedFiles(tmp_path / "w").dead() == ["worker_2"]  # whoever asks
    here.leave("worker_2")
    assert here.dead() == []
    here.leave("worker_1")
    assert not (tmp_path / "w").exists()


def test_a_folder_that_can_t_be_written_leaves_it_to_time(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("a file")
    there = LockedFiles(tmp_path / "w")
    there.enter("worker_1")
    there.leave("worker_1")
    assert there.dead() == []


def test_a_stranger_in_the_folder_is_no_worker_of_ours(tmp_path: Path) -> None:
    there = LockedFiles(tmp_path / "w")
    there.enter("worker_1")
    (tmp_path / "w" / ".hidden").write_text("")
    (tmp_path / "w" / "worker_folder").mkdir()
    assert there.dead() == []


async def test_a_start_settles_what_the_dead_have_left(tmp_path: Path) -> None:
    """No lease has to pass; of those who live nothing is touched."""
    url = f"sqlite:///{tmp_path}/t.db"
    async with open_store(url) as store, open_store(url) as other, open_store(url) as third:
        dies, lives = ledger_over(store), ledger_over(other)
        await dies.start()
        await lives.start()
        await begin(store, "req_gone", worker_id=dies.worker_id)
        await begin(other, "req_there", worker_id=lives.worker_id)
        presence = store._database.presence
        assert isinstance(presence, LockedFiles)
        os.close(presence._locked.pop(dies.worker_id))  # what the system does when a process ends
        heir = ledger_over(third)
        await heir.start()
        [posting] = await rows(third, "postings")
        assert (posting.id, posting.ending) == ("req_gone", "crash")
        assert [row.request_id for row in await rows(third, "holds")] == ["req_there"]


async def test_who_leaves_something_behind_leaves_word_of_it(tmp_path: Path) -> None:
    """A request that could not be posted in time is settled by the next start, and not a lease later."""
    url = f"sqlite:///{tmp_path}/t.db"
    async with open_store(url) as store:
        ends = ledger_over(store)
        await ends.start()
        await begin(store, "req_left", worker_id=ends.worker_id)
        await ends.close()
        presence = store._database.presence
        assert isinstance(presence, LockedFiles)
        os.close(presence._locked.pop(ends.worker_id))
    async with open_store(url) as store:
        heir = ledger_over(store)
        await heir.start()
        assert [row.id for row in await rows(store, "postings")] == ["req_left"]
        await heir.close()
    assert not (tmp_path / "t.db-workers").exists()


def test_where_nothing_can_be_locked_nobody_is_dead() -> None:
    there = Nowhere()
    there.enter("worker_1")
    there.leave("worker_1")
    assert there.dead() == []


def test_a_disk_without_locks_leaves_it_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    there = LockedFiles(tmp_path / "w")
    there.enter("worker_1")
    assert there.dead() == []
    there.leave("worker_1")
    assert not (tmp_path / "w").exists()
