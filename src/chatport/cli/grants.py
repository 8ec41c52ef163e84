"""`chatport grants` and `chatport corrections`: what is added to a budget by hand, and what is put right in it.

Both are postings of the account, with the reason and who gave it, and neither is ever removed. A grant moves the limit
of the running period; a correction moves what is posted in it, as when a customer is given back what a bad answer cost.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chatport.cli.database import on_store
from chatport.cli.endings import told
from chatport.cli.money import actor, budget_named, currency_of, understood
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import load

if TYPE_CHECKING:
    from chatport.policy.quantities import Amount
    from chatport.policy.standing import BudgetStanding
    from chatport.store import Store
    from chatport.store.account import Settlement
    from chatport.store.budgets import BudgetRow

grants = typer.Typer(help="More for a budget, for the period that runs.", no_args_is_help=True)
corrections = typer.Typer(help="Corrections of what is posted to a budget.", no_args_is_help=True)

Budget = Annotated[str, typer.Argument(metavar="BUDGET", help="The budget's id, as `budgets list` shows it.")]
Given = Annotated[
    str, typer.Argument(metavar="AMOUNT", help="5usd or 100000tok, in the budget's unit; may be negative.")
]
Note = Annotated[str, typer.Option("--note", help="Why.")]

NEGATIVE = {"ignore_unknown_options": True}
"""`-5usd` is an amount, not an option."""


@grants.command("add", context_settings=NEGATIVE)
def grant(budget: Budget, amount: Given, note: Note, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Raises a budget's limit in the period that runs now; a negative amount lowers it.

    The next period has the budget's own amount again: `budgets set` changes that one.

    Examples:

    * `chatport grants add bud_1a2b3c4d5e6f7g8h 5usd --note "bought on 1 May"`
    * `chatport grants add bud_1a2b3c4d5e6f7g8h -2usd --note "granted too much"`
    """
    _add("grant", budget, amount, note, config, as_json=as_json)


@corrections.command("add", context_settings=NEGATIVE)
def correct(
    budget: Budget, amount: Given, note: Note, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Adds to what is posted to a budget in the period that runs now; a negative amount gives back.

    The postings of requests stay as they are: the account is only ever added to.

    Example: `chatport corrections add bud_1a2b3c4d5e6f7g8h -0.5usd --note "outage on 3 May"`
    """
    _add("correction", budget, amount, note, config, as_json=as_json)


def _add(  # noqa: PLR0913  what the two commands were given
    kind: Literal["grant", "correction"],
    budget: str,
    amount: str,
    note: str,
    config: ConfigOption,
    *,
    as_json: bool,
) -> None:
    from chatport.policy.quantities import amount_of, shown  # noqa: PLC0415

    if not note.strip():
        raise typer.BadParameter("Say why.", param_hint="--note")

    async def work(store: Store) -> BudgetStanding:
        from chatport.policy.standing import standings  # noqa: PLC0415

        row = await budget_named(store, budget)
        if given.unit != row.unit:
            unit = "tokens" if row.unit == "token" else "money"
            raise ValueError(f"The budget {budget} is in {unit}; give the amount in it, such as {_example(row)}.")
        await store.journal.settle(_settlement(kind, row, given, note.strip(), time.time()))
        [stands] = await standings(store.budgets, [row], time.time())
        return stands

    with told():
        configured = load(config, os.environ)
        currency = currency_of(configured)
        with understood("AMOUNT"):
            given = amount_of(amount, currency)
        stands = on_store(configured, work)
    if as_json:
        print_json(stands)
        return
    limit, left = (shown(value, stands.unit, currency) for value in (stands.limit, stands.remaining))
    typer.echo(f"{budget}: limit {limit}, {left} left in this period.")
    if stands.posted + stands.held > stands.limit:
        typer.echo("note: more is used than the budget has now; requests under it are refused.", err=True)


def _settlement(
    kind: Literal["grant", "correction"], row: BudgetRow, given: Amount, note: str, now: float
) -> Settlement:
    """The posting, and its line in the audit log."""
    from msgspec import json  # noqa: PLC0415

    from chatport.policy.budgets import period_of  # noqa: PLC0415
    from chatport.store import audit  # noqa: PLC0415
    from chatport.store.account import Held, PostingRow, Settlement  # noqa: PLC0415

    who = actor()
    now_ms = int(now * 1000)
    period, _ = period_of(row.period, row.zone, now)
    posting = PostingRow(
        id=f"{kind}_{secrets.token_hex(8)}", kind=kind, created_ms=now_ms, settled_ms=now_ms, note=f"{note} ({who})"
    )
    said = {"posting": posting.id, "period": period, "unit": row.unit, "amount": given.amount, "note": note}
    change = audit.Change(who, f"{kind}.add", row.id, None, json.encode(said))
    return Settlement(
        posting=posting,
        taken=(Held(row.id, period, given.amount, row.unit),),
        also=(lambda connection: audit.note(connection, change),),
    )


def _example(row: BudgetRow) -> str:
    return "100000tok" if row.unit == "token" else "5usd"
