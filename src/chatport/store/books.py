"""The account's transaction: what must be true at every instant is decided inside the transaction that makes it true.

A hold is placed or extended only where every budget it falls under has room for it, and a request is posted by whoever
removes its hold, so that two who try (a worker and its recovery, a retry after a lost answer) post it once. Each
balance is read once, locked, changed in memory and written once.

The statements are plain SQL that both databases understand: on SQLite they go to its driver directly, which costs a
fifth of the way through SQLAlchemy, and they are what every request pays for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct, json, structs
from sqlalchemy import Connection

from chatport.store.account import (
    Answer,
    AttemptRow,
    Claim,
    Held,
    Hold,
    HoldAccount,
    HoldRow,
    Lost,
    NoRoom,
    Place,
    Placed,
    PostingRow,
    Settlement,
    Write,
)
from chatport.store.database import Insertion, counts_of, rows_of, run_many
from chatport.store.schema import plain


class Balance(Struct, kw_only=True):
    """One budget in one period, while a transaction works on it."""

    amount: int
    """The budget's."""
    ended: bool
    posted: int
    held: int
    granted: int
    changed: bool = False

    @property
    def limit(self) -> int:
        return self.amount + self.granted


def write_account(connection: Connection, writes: Sequence[Write]) -> list[Any]:
    """All of it in the caller's transaction; what each write is answered."""
    return _Books(connection, writes).write()


class _Books:
    """One transaction's work: balances are read once, changed in memory, and written at its end."""

    def __init__(self, connection: Connection, writes: Sequence[Write]) -> None:
        self._connection = connection
        self._writes = writes
        self._ended = _remove_holds(connection, [write for write in writes if type(write) is Settlement])
        claims = [claim for write in writes if type(write) is Hold and write.claims for claim in write.claims]
        _make_budgets(connection, claims)
        self._balances = _load(connection, _places(writes, claims, self._ended.values()))
        self._placed: list[Sequence[Any]] = []
        self._posted: list[Sequence[Any]] = []
        self._entries: list[dict[str, Any]] = []

    def write(self) -> list[Any]:
        answers = [self._answer(write) for write in self._writes]
        self._place()
        INSERT_POSTING.run(self._connection, self._posted)
        run_many(self._connection, INSERT_ENTRY, self._entries)
        changed = [
            {
                "budget_id": place[0],
                "period": place[1],
                "posted": balance.posted,
                "held": balance.held,
                "granted": balance.granted,
            }
            for place, balance in self._balances.items()
            if balance.changed
        ]
        run_many(self._connection, UPDATE_BALANCE, changed)
        return answers

    def _answer(self, write: Write) -> Any:
        # By its very class, here and above: that it is none of another's costs `isinstance` a thousand instructions.
        if type(write) is Hold:
            return self._hold(write)
        if type(write) is Settlement:
            return self._settle(write)
        self._place()
        run_many(self._connection, CHECKPOINT, [structs.asdict(write)])
        return None

    def _hold(self, hold: Hold) -> Answer:
        if not hold.claims and not hold.row.account.held:  # no budget: it is there for its posting
            return Placed(hold.most, (), hold.wanted) if self._write_hold(hold.row, new=hold.new) else Lost()
        before = {held.place: held.amount for held in hold.row.account.held}
        output, affordable = hold.most, hold.wanted
        refusals: list[NoRoom] = []
        for claim in hold.claims:
            balance = self._balances[claim.place]
            if not claim.enforced or balance.ended:
                continue
            others = balance.held - before.get(claim.place, 0)
            left = balance.limit - balance.posted
            room = claim.room(left - others, hold.most)
            enough = max(hold.least, claim.room(left, hold.most)) if hold.patient else hold.least
            if room < enough:
                needed = claim.amount(hold.least)
                refusals.append(NoRoom(claim.budget_id, claim.period, needed, balance.limit, balance.posted, others))
            output, affordable = min(output, room), min(affordable, claim.room(left, hold.wanted))
        if refusals:
            # One that no wait can help is told before one that others' holds are in the way of.
            return next((refusal for refusal in refusals if refusal.exhausted), refusals[0])
        held = tuple(claim.held(output) for claim in hold.claims)
        account = structs.replace(hold.row.account, held=held)
        if not self._write_hold(structs.replace(hold.row, account=account), new=hold.new):
            return Lost()
        self._move(hold.row.account.held, held=-1)
        self._move(held, held=1)
        return Placed(output, held, affordable)

    def _write_hold(self, row: HoldRow, *, new: bool) -> bool:
        """Whether the hold is there."""
        account = json.encode(row.account)
        if new:
            counts = (row.prompt_tokens, row.completion_tokens)
            self._placed.append((row.request_id, row.worker_id, row.created_ms, account, *counts))
            return True
        self._place()
        return bool(rows_of(self._connection, CHANGE_HOLD, structs.asdict(row) | {"account": account}))

    def _place(self) -> None:
        """Writes the new holds: many at once, and before anything that concerns them."""
        INSERT_HOLD.run(self._connection, self._placed)
        self._placed = []

    def _settle(self, settlement: Settlement) -> bool:
        for work in settlement.also:
            work(self._connection)
        posting = settlement.posting
        if posting.kind == "request":
            held = self._ended.pop(posting.id, None)
            if held is None:
                return False
            if held:  # as the database says it: an extension may have been written whose answer was lost
                self._move(held, held=-1)
        if settlement.taken:
            self._post_to_budgets(settlement)
        else:
            self._posted.append(_columns(posting))
        if settlement.attempts:
            INSERT_ATTEMPT.run(self._connection, [_attempt(row) for row in settlement.attempts])
        return True

    def _post_to_budgets(self, settlement: Settlement) -> None:
        sequence = INSERT_POSTING.numbered(self._connection, _columns(settlement.posting), "sequence")
        self._entries += [
            {"budget_id": taken.budget_id, "period": taken.period, "sequence": sequence, "amount": taken.amount}
            for taken in settlement.taken
        ]
        granted = settlement.posting.kind == "grant"
        self._move(settlement.taken, posted=int(not granted), granted=int(granted))

    def _move(self, amounts: Iterable[Held], *, posted: int = 0, held: int = 0, granted: int = 0) -> None:
        for each in amounts:
            balance = self._balances[each.place]
            balance.posted += posted * each.amount
            balance.held += held * each.amount
            balance.granted += granted * each.amount
            balance.changed = True


def _remove_holds(connection: Connection, ends: Sequence[Settlement]) -> dict[str, tuple[Held, ...]]:
    """Takes the holds of requests that are over, and says what was held for whom. Those that others were faster to take
    are not among them."""
    if not ends:
        return {}
    if connection.dialect.name == "sqlite":
        return _remove_listed(connection, ends)
    found = rows_of(connection, REMOVE_HOLDS, {"ids": [end.posting.id for end in ends]})
    return {str(request_id): _held(account) for request_id, account in found}


def _remove_listed(connection: Connection, ends: Sequence[Settlement]) -> dict[str, tuple[Held, ...]]:
    """The same on SQLite. Most requests fall under no budget: their holds go without being read, at two thirds of the
    cost. Where that finds none, it is taken, if it is there, with what it holds after all."""
    bare = [end.posting.id for end in ends if not end.taken]
    counts = counts_of(connection, REMOVE_BARE_HOLD, [(request_id,) for request_id in bare])
    removed: dict[str, tuple[Held, ...]] = {each: () for each, count in zip(bare, counts, strict=True) if count}
    others = [end.posting.id for end in ends if end.posting.id not in removed]
    if others:
        found = rows_of(connection, REMOVE_HOLDS_LISTED, {"ids": json.encode(others).decode()})
        removed.update({request_id: _held(account) for request_id, account in found})
    return removed


def _held(account: bytes) -> tuple[Held, ...]:
    """What a hold's account says is held; it says nothing where that is nothing."""
    return json.decode(account, type=HoldAccount).held if b'"held":' in account else ()


def _places(writes: Sequence[Write], claims: Sequence[Claim], ended: Iterable[tuple[Held, ...]]) -> list[Place]:
    """Every balance that the writes, and the holds that they end, concern: in the one order in which all transactions
    lock them."""
    places = {claim.place for claim in claims}
    places.update([held.place for account in ended if account for held in account])
    for write in writes:
        if type(write) is Settlement:
            if write.taken:
                places.update([taken.place for taken in write.taken])
        elif type(write) is Hold and write.row.account.held:
            places.update([held.place for held in write.row.account.held])
    return sorted(places)


def _make_budgets(connection: Connection, claims: Sequence[Claim]) -> None:
    """Those of end users that are met for the first time: each like the one for each of them."""
    wanted = {
        claim.budget_id: {"id": claim.budget_id, "parent": claim.parent, "end_user": plain(claim.end_user or "")}
        for claim in claims
        if claim.parent is not None
    }
    run_many(connection, NEW_BUDGET, [wanted[budget_id] for budget_id in sorted(wanted)])


def _load(connection: Connection, places: Sequence[Place]) -> dict[Place, Balance]:
    """The balances, locked to the transaction's end; one that is not there yet is made."""
    if not places:
        return {}
    named = [{"budget_id": budget_id, "period": period} for budget_id, period in places]
    run_many(connection, NEW_BALANCE, named)
    if connection.dialect.name == "sqlite":
        rows = [row for place in named for row in rows_of(connection, BALANCE, place)]
    else:
        columns = {"budgets": [budget_id for budget_id, _ in places], "periods": [period for _, period in places]}
        rows = [*rows_of(connection, LOCKED_BALANCES, columns)]
    return {
        (budget_id, period): Balance(
            amount=amount, ended=ended_at is not None, posted=posted, held=held, granted=granted
        )
        for budget_id, period, amount, ended_at, posted, held, granted in rows
    }


def _columns(posting: PostingRow) -> list[Any]:
    columns = [*structs.astuple(posting)]
    for place in SAID:
        if columns[place] is not None:
            columns[place] = plain(columns[place])
    return columns


SAID: Final = [
    PostingRow.__struct_fields__.index(name) for name in ("owner", "end_user", "model", "target", "error", "note")
]
"""Where a posting has what somebody may have chosen himself."""


def _attempt(row: AttemptRow) -> Sequence[Any]:
    told = {"target": plain(row.target), "model": plain(row.model), "outcome": plain(row.outcome)}
    return structs.astuple(structs.replace(row, **told))


# --- Statements ------------------------------------------------------------------------------------------------------

INSERT_HOLD: Final = Insertion("holds", HoldRow)
CHANGE_HOLD: Final = (
    "UPDATE holds SET account = :account, prompt_tokens = :prompt_tokens, completion_tokens = :completion_tokens "
    "WHERE request_id = :request_id AND worker_id = :worker_id RETURNING request_id"
)
CHECKPOINT: Final = (
    "UPDATE holds SET prompt_tokens = :prompt_tokens, completion_tokens = :completion_tokens "
    "WHERE request_id = :request_id"
)
REMOVE_HOLDS: Final = "DELETE FROM holds WHERE request_id = ANY(:ids) RETURNING request_id, account"
REMOVE_HOLDS_LISTED: Final = (
    "DELETE FROM holds WHERE request_id IN (SELECT value FROM json_each(:ids)) RETURNING request_id, account"
)
"""The same for SQLite, which knows no arrays but those of JSON."""
REMOVE_BARE_HOLD: Final = "DELETE FROM holds WHERE request_id = ? AND instr(account, CAST('\"held\":' AS BLOB)) = 0"
"""One that holds nothing, for SQLite."""
INSERT_POSTING: Final = Insertion("postings", PostingRow)
INSERT_ENTRY: Final = (
    "INSERT INTO entries (budget_id, period, sequence, amount) VALUES (:budget_id, :period, :sequence, :amount)"
)
INSERT_ATTEMPT: Final = Insertion("attempts", AttemptRow)
NEW_BALANCE: Final = (
    "INSERT INTO balances (budget_id, period, posted, held, granted) VALUES (:budget_id, :period, 0, 0, 0) "
    "ON CONFLICT DO NOTHING"
)
NEW_BUDGET: Final = (
    "INSERT INTO budgets (id, kind, subject, end_user, unit, amount, period, zone, mode, created_at, ended_at, parent) "
    "SELECT :id, kind, subject, :end_user, unit, amount, period, zone, mode, created_at, ended_at, id FROM budgets "
    "WHERE id = :parent ON CONFLICT DO NOTHING"
)
BALANCES: Final = (
    "SELECT balances.budget_id, balances.period, coalesce(parents.amount, budgets.amount), "
    "coalesce(parents.ended_at, budgets.ended_at), balances.posted, balances.held, balances.granted "
    "FROM balances JOIN budgets ON budgets.id = balances.budget_id LEFT JOIN budgets AS parents "
    "ON parents.id = budgets.parent "
)
"""One end user's part of a budget for each is as that one is, whatever is written in its own row."""
BALANCE: Final = BALANCES + "WHERE balances.budget_id = :budget_id AND balances.period = :period"
LOCKED_BALANCES: Final = (
    BALANCES + "JOIN unnest(CAST(:budgets AS text[]), CAST(:periods AS bigint[])) AS wanted (budget_id, period) "
    "ON balances.budget_id = wanted.budget_id AND balances.period = wanted.period "
    "ORDER BY balances.budget_id, balances.period FOR UPDATE OF balances"
)
"""All at once, and locked in their order."""
UPDATE_BALANCE: Final = (
    "UPDATE balances SET posted = :posted, held = :held, granted = :granted "
    "WHERE budget_id = :budget_id AND period = :period"
)
