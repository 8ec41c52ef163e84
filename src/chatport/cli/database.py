"""The configured database, as the commands work through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from chatport.cli.endings import Ending, end, store_told
from chatport.config import Config

if TYPE_CHECKING:
    from chatport.store import Store

Result = TypeVar("Result")


def on_store(config: Config, work: Callable[[Store], Awaitable[Result]]) -> Result:
    """Opens the store, does the work, and ends the program with a sentence where it can't be done."""
    from chatport.store import open_store  # noqa: PLC0415
    from chatport.wire.errors import ApiError  # noqa: PLC0415

    async def run() -> Result:
        async with open_store(config.store_url, durability=config.store.durability) as store:
            return await work(store)

    with store_told():
        try:
            return asyncio.run(run())
        except (ApiError, ValueError) as error:
            end(Ending.FAILED, str(error))
