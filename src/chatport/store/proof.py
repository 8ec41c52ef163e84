"""Whether the account is right: everything that follows from other rows is computed again, from one state of the
database, so that the answer holds while servers write.

Postings are gone through a range at a time: no statement takes long, and nothing is in memory but one sum for each
budget and period.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct, json
from sqlalchemy import Connection

from chatport.store.account import HoldAccount, Place, Unit
from chatport.store.database import Database, rows_of

RANGE: Final = 100_000
"""Postings that one statement goes through."""

What: TypeAlias = Literal[
    "posted", "granted", "held", "entry_amount", "entry_without_posting", "posted_twice", "posted_and_held"
]


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Two numbers that should be the same: `kept` is what is written down, `computed` what follows from other rows."""

    what: What
    """`posted`, `granted`, `held`: of a balance, which should be the sum of its entries, or of what requests hold;
    `entry_amount`: what a request took from a budget, which should be its charge or its tokens; the others are counts.
    """
    kept: int
    computed: int
    budget_id: str | None = None
    period: int | None = None
    request_id: str | None = None


class OverHold(Struct, frozen=True, kw_only=True):
    """A request that used more than it could be bounded to."""

    request_id: str
    settled_ms: int
    model: str | None
    target: str | None
    held_nano: int
    charge_nano: int


class OverLimit(Struct, frozen=True, kw_only=True):
    """A budget of which more is posted and held than it has. In its unit."""

    budget_id: str
    period: int
    unit: Unit
    limit: int
    posted: int
    held: int


class Proof(Struct, frozen=True, kw_only=True):
    """The account is right where `differences` is empty."""

    requests: int
    balances: int
    open_holds: int
    differences: list[Difference]
    over_hold: list[OverHold]
    over_limit: list[OverLimit]


class Prover:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def verify(self) -> Proof:
        """Computes everything again. Takes some seconds for each million of postings."""
        return await self._database.read(_verify)


def _verify(connection: Connection) -> Proof:
    kept = {(row[0], row[1]): _Kept(*row[2:]) for row in rows_of(connection, BALANCES, {})}
    sums = _sums(connection)
    held, held_ids = _held(connection)
    differences = [
        *_differing(kept, sums, held),
        *_strange_entries(connection),
        *_twice(connection, held_ids),
    ]
    [(requests,)] = rows_of(connection, "SELECT count(*) FROM postings WHERE kind = 'request'", {})
    return Proof(
        requests=requests,
        balances=len(kept),
        open_holds=len(held_ids),
        differences=differences,
        over_hold=list(_over_hold(connection)),
        over_limit=[
            OverLimit(
                budget_id=place[0],
                period=place[1],
                unit=one.unit,
                limit=one.amount + one.granted,
                posted=one.posted,
                held=one.held,
            )
            for place, one in sorted(kept.items())
            if one.posted + one.held > one.amount + one.granted
        ],
    )


class _Kept(NamedTuple):
    """A balance as it is written down, and its budget's amount and unit."""

    posted: int = 0
    held: int = 0
    granted: int = 0
    amount: int = 0
    unit: Unit = "nano"


class _Sum:
    __slots__ = ("granted", "posted")

    def __init__(self) -> None:
        self.posted = 0
        self.granted = 0


def _sums(connection: Connection) -> dict[Place, _Sum]:
    """What the entries of each budget and period come to."""
    sums: dict[Place, _Sum] = defaultdict(_Sum)
    for bounds in _ranges(connection):
        for budget_id, period, is_grant, amount in rows_of(connection, SUMS, bounds):
            of_place = sums[budget_id, period]
            if is_grant:
                of_place.granted += int(amount)
            else:
                of_place.posted += int(amount)
    return sums


def _held(connection: Connection) -> tuple[dict[Place, int], list[str]]:
    """What requests hold of each budget, and which requests they are."""
    sums: dict[Place, int] = defaultdict(int)
    rows = rows_of(connection, "SELECT request_id, account FROM holds ORDER BY request_id", {})
    for _, account in rows:
        for held in json.decode(account, type=HoldAccount).held:
            sums[held.place] += held.amount
    return sums, [request_id for request_id, _ in rows]


def _differing(kept: dict[Place, _Kept], sums: dict[Place, _Sum], held: dict[Place, int]) -> Iterator[Difference]:
    for place in sorted({*kept, *sums, *held}):
        balance, entries = kept.get(place, _Kept()), sums.get(place, _Sum())
        compared: tuple[tuple[What, int, int], ...] = (
            ("posted", balance.posted, entries.posted),
            ("granted", balance.granted, entries.granted),
            ("held", balance.held, held.get(place, 0)),
        )
        for what, is_kept, computed in compared:
            if is_kept != computed:
                yield Difference(what=what, kept=is_kept, computed=computed, budget_id=place[0], period=place[1])


def _strange_entries(connection: Connection) -> Iterator[Difference]:
    """Entries that are not what their posting says."""
    for bounds in _ranges(connection):
        for budget_id, period, request_id, amount, due in rows_of(connection, WRONG_AMOUNTS, bounds):
            yield Difference(
                what="entry_amount",
                kept=amount,
                computed=int(due),
                budget_id=budget_id,
                period=period,
                request_id=request_id,
            )
    for budget_id, period, count in rows_of(connection, LONELY, {}):
        yield Difference(what="entry_without_posting", kept=count, computed=0, budget_id=budget_id, period=period)


def _twice(connection: Connection, held_ids: list[str]) -> Iterator[Difference]:
    """Requests that are in the account more than once."""
    for request_id, count in rows_of(connection, TWICE, {}):
        yield Difference(what="posted_twice", kept=count, computed=1, request_id=request_id)
    for request_id in held_ids:
        if rows_of(connection, "SELECT 1 FROM postings WHERE id = :id", {"id": request_id}):
            yield Difference(what="posted_and_held", kept=2, computed=1, request_id=request_id)


def _over_hold(connection: Connection) -> Iterator[OverHold]:
    for bounds in _ranges(connection):
        for row in rows_of(connection, OVER_HOLD, bounds):
            yield OverHold(**dict(zip(OverHold.__struct_fields__, row, strict=True)))


def _ranges(connection: Connection) -> Iterator[dict[str, int]]:
    """Ranges of sequence numbers that together hold every posting and every entry."""
    [(last,)] = rows_of(connection, LAST, {})
    for after in range(0, last, RANGE):
        yield {"after": after, "upto": after + RANGE}


# --- Statements ------------------------------------------------------------------------------------------------------

LAST: Final = "SELECT coalesce(max(sequence), 0) FROM postings"

BALANCES: Final = (
    "SELECT balances.budget_id, balances.period, balances.posted, balances.held, balances.granted, "
    "coalesce(parents.amount, budgets.amount), budgets.unit FROM balances JOIN budgets "
    "ON budgets.id = balances.budget_id LEFT JOIN budgets AS parents ON parents.id = budgets.parent"
)

SUMS: Final = (
    "SELECT entries.budget_id, entries.period, CASE postings.kind WHEN 'grant' THEN 1 ELSE 0 END, sum(entries.amount) "
    "FROM entries JOIN postings ON postings.sequence = entries.sequence "
    "WHERE entries.sequence > :after AND entries.sequence <= :upto GROUP BY 1, 2, 3"
)

WRONG_AMOUNTS: Final = (
    "SELECT entries.budget_id, entries.period, postings.id, entries.amount, "
    "CASE budgets.unit WHEN 'token' THEN postings.prompt_tokens + postings.completion_tokens "
    "ELSE postings.charge_nano END AS due "
    "FROM entries JOIN postings ON postings.sequence = entries.sequence JOIN budgets ON budgets.id = entries.budget_id "
    "WHERE entries.sequence > :after AND entries.sequence <= :upto AND postings.kind = 'request' "
    "AND entries.amount <> CASE budgets.unit WHEN 'token' THEN postings.prompt_tokens + postings.completion_tokens "
    "ELSE postings.charge_nano END"
)

LONELY: Final = (
    "SELECT budget_id, period, count(*) FROM entries "
    "WHERE NOT EXISTS (SELECT 1 FROM postings WHERE postings.sequence = entries.sequence) GROUP BY 1, 2"
)

TWICE: Final = "SELECT id, count(*) FROM postings GROUP BY id HAVING count(*) > 1"

OVER_HOLD: Final = (
    "SELECT id, settled_ms, model, target, held_nano, charge_nano FROM postings "
    "WHERE over_hold AND sequence > :after AND sequence <= :upto ORDER BY sequence"
)
