"""What keys' owners pay for what their requests cost."""

from __future__ import annotations

from typing import Final

from chatport.store.owners import OwnerRows

AS_IT_COSTS: Final = 1_000_000
"""Millionths: charge = cost."""


class Owners:
    """Every owner that something was set for. `load` may raise StoreUnavailable."""

    def __init__(self, rows: OwnerRows) -> None:
        self.rows = rows
        self._factors: dict[str, int] = {}

    async def load(self) -> None:
        """Takes every owner into memory."""
        self._factors = {row.name: row.factor_ppm for row in await self.rows.all()}

    def factor_ppm(self, owner: str | None) -> int:
        """Charge = cost x factor; millionths."""
        return AS_IT_COSTS if owner is None else self._factors.get(owner, AS_IT_COSTS)
