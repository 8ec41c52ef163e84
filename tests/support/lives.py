"""The real program, life after life over one database: started, killed, stopped, started again."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from chatport.store import Store, open_store
from chatport.store.budgets import BudgetRow
from chatport.store.keys import KeyRow
from support.accounts import budget
from support.serving import START_SECONDS, STOP_SECONDS, environment_for, free_port

MAIN = "from chatport.cli import main; main()"

LEDGER = "[ledger]\nlease_seconds = 1\ncheckpoint_tokens = 4\nslice_tokens = 16\nbudget_wait = 0.2\n"
"""Small, so that a short answer has checkpoints, extensions and waits."""


def configured(store_url: str, *models: str, ledger: str = LEDGER, more: str = "") -> str:
    """A configuration file."""
    return "\n".join([f'[store]\nurl = "{store_url}"', ledger, more, *models])


class Program:
    """`chatport serve` on a port of its own; `url` stays the same over all of its lives."""

    def __init__(self, home: Path, config: str, environ: Mapping[str, str] | None = None, before: str = "") -> None:
        """`before`: Python that the process runs first, for what can't be configured (`[store]` timeouts)."""
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.lives = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        (home / "chatport.toml").write_text(config, encoding="utf-8")
        self._environ = environment_for(home) | dict(environ or {})
        self._command = [sys.executable, "-c", before + MAIN] if before else [sys.executable, "-m", "chatport"]

    @property
    def log(self) -> str:
        """What this life has said so far."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self.home / f"serve-{self.lives}.log"

    async def start(self) -> None:
        """Returns when it answers. Raises with its log when it does not."""
        self.lives += 1
        command = [*self._command, "serve", "--port", str(self._port), "--config", str(self.home / "chatport.toml")]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(command, env=self._environ, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
        raise AssertionError(f"the server is not ready; it said:\n{self.log}")

    async def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    async def terminate(self) -> None:
        """SIGTERM; it must end with 0, and in time."""
        assert self.process is not None
        self.process.terminate()
        try:
            code = await asyncio.to_thread(self.process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            await self.kill()
            raise AssertionError(f"SIGTERM did not stop the server:\n{self.log}") from None
        assert code == 0, f"the server ended with {code}:\n{self.log}"


@asynccontextmanager
async def living(program: Program) -> AsyncIterator[Program]:
    """Its first life begins here; the last one ends with the block, with 0."""
    try:
        await program.start()
        yield program
        await program.terminate()
    finally:
        if program.process is not None and program.process.poll() is None:
            await program.kill()


class NewKey:
    """An API key, and the budget it has."""

    def __init__(self, name: str, **fields: object) -> None:
        self.id = f"key_{name}"
        self.secret = f"sk-cp-{name}-0123456789abcdefghijklmnop"
        self.budget: BudgetRow | None = None
        if fields:
            self.budget = budget(id=f"bud_{name}", subject=self.id, **fields)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secret}"}

    async def keep(self, store: Store) -> None:
        """Makes it known to the next server over the store."""
        digest = hashlib.sha256(self.secret.encode()).digest()
        row = KeyRow(id=self.id, name=self.id, digest=digest, prefix="sk-cp-", admin=False, models=None, created_at=1)
        await store.keys.add(row)
        await self.set_budget(store)

    async def set_budget(self, store: Store) -> None:
        """Gives the key the budget, if it has one here."""
        if self.budget is not None:
            await store.budgets.add(self.budget, "test")


async def prepared(store_url: str, *keys: NewKey) -> None:
    """The database with these keys."""
    async with open_store(store_url) as store:
        for key in keys:
            await key.keep(store)
