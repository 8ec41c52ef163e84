"""`chatport ledger`: the account itself, line by line, and whether it is right."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from msgspec import Struct, json

from chatport.cli.database import on_store
from chatport.cli.endings import Ending, told
from chatport.cli.money import currency_of, understood
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import load

if TYPE_CHECKING:
    from chatport.policy.quantities import Currency
    from chatport.store import Store
    from chatport.store.account import HoldRow, PostingRow
    from chatport.store.proof import Proof

ledger = typer.Typer(
    help="The account: every request's line, and whether all its sums are right.", no_args_is_help=True
)

Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="24h, 7d, 2026-11-01 or a time. Default: everything.")
]


class Line(Struct, frozen=True, kw_only=True):
    """One request in `ledger export`. Amounts are nano-dollars, times Unix seconds."""

    request_id: str
    key_id: str | None
    model: str | None
    state: Literal["posted", "held"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    held_nano: int
    cost_nano: int
    charge_nano: int
    price_version: str | None
    counted_by: str | None
    ending: str | None
    created_at: float
    settled_at: float | None


@ledger.command()
def export(since: Since = None, config: ConfigOption = None) -> None:
    """Prints every request as a line of JSON: first those that are posted, in their order, then those that run.

    Examples:

    * `chatport ledger export --since 30d > november.jsonl`
    * `chatport ledger export | jq -s 'map(.charge_nano) | add'`
    """
    from chatport.policy.quantities import since_of  # noqa: PLC0415

    async def work(store: Store) -> None:
        async for row in store.records.every(begin * 1000):
            sys.stdout.buffer.write(json.encode(line_of(row)) + b"\n")
        sys.stdout.buffer.flush()

    with told():
        configured = load(config, os.environ)
        with understood("--since"):
            begin = 0 if since is None else since_of(since, time.time())
        on_store(configured, work)


@ledger.command()
def verify(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Computes every balance again from the rows it follows from, while servers may go on writing.

    Ends with 0 when all is right, with 1 when something differs, and says what. Requests that used more than they could
    be bounded to, and budgets that are over their limit by them, are listed; they are no difference.
    """

    async def work(store: Store) -> Proof:
        return await store.prover.verify()

    with told():
        configured = load(config, os.environ)
        proof = on_store(configured, work)
    if as_json:
        print_json(proof)
    else:
        for sentence in in_words(proof, currency_of(configured)):
            typer.echo(sentence)
    if proof.differences:
        raise typer.Exit(Ending.FAILED)


def line_of(row: PostingRow | HoldRow) -> Line:
    """A request's line, whether it is posted or still runs."""
    from chatport.store.account import PostingRow  # noqa: PLC0415

    if isinstance(row, PostingRow):
        return Line(
            request_id=row.id,
            key_id=row.key_id,
            model=row.model,
            state="posted",
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            completion_tokens=row.completion_tokens,
            reasoning_tokens=row.reasoning_tokens,
            held_nano=row.held_nano,
            cost_nano=row.cost_nano,
            charge_nano=row.charge_nano,
            price_version=row.price_id,
            counted_by=row.counted_by,
            ending=row.ending,
            created_at=row.created_ms / 1000,
            settled_at=row.settled_ms / 1000,
        )
    return Line(
        request_id=row.request_id,
        key_id=row.account.key_id,
        model=row.account.model,
        state="held",
        prompt_tokens=row.prompt_tokens,
        cached_tokens=0,
        completion_tokens=row.completion_tokens,
        reasoning_tokens=0,
        held_nano=row.account.held_nano,
        cost_nano=0,
        charge_nano=0,
        price_version=row.account.price_id,
        counted_by=None,
        ending=None,
        created_at=row.created_ms / 1000,
        settled_at=None,
    )


def in_words(proof: Proof, currency: Currency) -> list[str]:
    """What was found, a sentence a line."""
    from chatport.policy.quantities import shown  # noqa: PLC0415

    said = [f"{proof.requests} requests posted, {proof.open_holds} running, {proof.balances} balances."]
    for one in proof.differences:
        where = [name for name in (one.budget_id, one.request_id) if name is not None]
        what = one.what.replace("_", " ")
        said.append(
            f"DIFFERS: {what} of {', '.join(where) or 'the account'}: {one.kept} kept, {one.computed} computed."
        )
    said += [
        f"over its hold: {one.request_id} ({one.model}): {currency.shown(one.held_nano)} held, "
        f"{currency.shown(one.charge_nano)} charged."
        for one in proof.over_hold
    ]
    said += [
        f"over its limit: {one.budget_id}: {shown(one.posted, one.unit, currency)} posted and "
        f"{shown(one.held, one.unit, currency)} held of {shown(one.limit, one.unit, currency)}."
        for one in proof.over_limit
    ]
    return [*said, "The account is right." if not proof.differences else "The account is NOT right."]
