"""`chatport budgets`: what may be spent. Works through the database; a running server notices within a second."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING, Annotated

import typer

from chatport.cli.database import on_store
from chatport.cli.endings import told
from chatport.cli.money import actor, budget_named, currency_of, moment, print_table, scope_named, understood
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import load

if TYPE_CHECKING:
    from chatport.policy.quantities import Amount, Currency
    from chatport.policy.standing import BudgetStanding
    from chatport.store import Store
    from chatport.store.budgets import BudgetRow, Kind, Mode, Period

budgets = typer.Typer(
    help="What keys, owners, models and end users may spend. A running server notices within a second.",
    no_args_is_help=True,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The budget's id, as `budgets list` shows it.")]


@budgets.command("list")
def list_command(
    ended: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="ID", help="Of a budget for each end user: those of the users it has met."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the budgets, oldest first, each with its running period: what is used, held by requests, and left."""

    async def work(store: Store) -> list[BudgetStanding]:
        from chatport.policy.standing import standings  # noqa: PLC0415

        every = await store.budgets.all() if of is None else await _of_each(store, of)
        rows = [row for row in every if ended or row.ended_at is None]
        return await standings(store.budgets, rows, time.time())

    with told():
        found = on_store(configured := load(config, os.environ), work)
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("There are no budgets. Make one with: chatport budgets create key:ID 5usd/month")
    else:
        _print_budgets(found, currency_of(configured))


@budgets.command()
def create(  # noqa: PLR0913, PLR0917  a command's options
    scope: Annotated[
        str,
        typer.Argument(
            metavar="SCOPE", help="Whose: key:ID, owner:NAME, model:ID, user:KEY_ID/USER, or user:KEY_ID/* for each."
        ),
    ],
    amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="5usd or 100000tok, with /day, /week or /month, or once.")
    ],
    zone: Annotated[str, typer.Option("--zone", help="Where days, weeks and months begin, at midnight.")] = "UTC",
    report: Annotated[bool, typer.Option("--report", help="Only count: refuse and cut nothing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sets a budget. Every budget that a request falls under must have room for it.

    Money counts what is charged, the price times the owner's factor; tokens are those of prompt and completion.

    Examples:

    * `chatport budgets create key:key_1a2b3c4d5e6f7g8h 5usd/month`
    * `chatport budgets create owner:alice 2000000tok/day --zone Asia/Shanghai`
    * `chatport budgets create user:key_1a2b3c4d5e6f7g8h/u-17 0.5usd/week --report`
    * `chatport budgets create 'user:key_1a2b3c4d5e6f7g8h/*' 1usd/month` (each end user that has none of his own)
    """
    from chatport.policy.quantities import budget_of, zone_of  # noqa: PLC0415

    async def work(store: Store) -> BudgetStanding:
        kind, subject, end_user = await scope_named(store, configured, scope)
        row = new_budget(kind, subject, given, period, end_user=end_user, zone=zone, mode=mode)
        await store.budgets.add(row, actor())
        return await _stands(store, row)

    mode: Mode = "report" if report else "enforce"
    with told():
        configured = load(config, os.environ)
        with understood("AMOUNT"):
            given, period = budget_of(amount, currency_of(configured))
        with understood("--zone"):
            zone_of(zone)
        made = on_store(configured, work)
    _say(made, as_json=as_json, currency=currency_of(configured))


@budgets.command("set")
def set_command(
    budget: Id,
    amount: Annotated[
        str | None, typer.Option("--amount", metavar="AMOUNT", help="For each period, from the running one on.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="MODE", help="enforce, or report: refuse and cut nothing.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Changes a budget. Unit, period and zone are what it is: for others, end it and make another.

    Example: `chatport budgets set bud_1a2b3c4d5e6f7g8h --amount 10usd`
    """
    from chatport.policy.quantities import budget_of  # noqa: PLC0415

    if mode not in {None, "enforce", "report"}:
        raise typer.BadParameter(f"{mode!r} is no mode; write enforce or report.", param_hint="--mode")
    if amount is None and mode is None:
        raise typer.BadParameter("Say what to change.", param_hint="--amount or --mode")

    async def work(store: Store) -> BudgetStanding:
        before = _set_by_hand(await budget_named(store, budget))
        columns: dict[str, object] = {} if mode is None else {"mode": mode}
        if wanted is not None:
            given, period = wanted
            if given.unit != before.unit or period not in {"once", before.period}:
                raise ValueError(
                    f"The budget {budget} is in {_words(before.unit)} per {before.period}; that can't be changed. "
                    "End it and make another."
                )
            columns["amount"] = given.amount
        after = await store.budgets.change(budget, actor(), **columns)
        return await _stands(store, after or before)

    with told():
        configured = load(config, os.environ)
        with understood("--amount"):
            wanted = None if amount is None else budget_of(amount, currency_of(configured))
        made = on_store(configured, work)
    _say(made, as_json=as_json, currency=currency_of(configured))


@budgets.command("end")
def end_command(budget: Id, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Ends a budget: it refuses and cuts nothing any more, and what was posted to it stays in the account.

    Example: `chatport budgets end bud_1a2b3c4d5e6f7g8h`
    """

    async def work(store: Store) -> BudgetStanding:
        row = _set_by_hand(await budget_named(store, budget))
        return await _stands(store, await store.budgets.change(row.id, actor(), ended_at=int(time.time())) or row)

    with told():
        ended = on_store(configured := load(config, os.environ), work)
    _say(ended, as_json=as_json, currency=currency_of(configured))


async def _of_each(store: Store, budget_id: str) -> list[BudgetRow]:
    """The end users' parts of a budget for each. Raises ValueError."""
    from chatport.policy.limits import EACH  # noqa: PLC0415

    row = await store.budgets.one(budget_id)
    if row is None or row.end_user != EACH:
        raise ValueError(f"{budget_id} is no budget for each end user of a key. Those: chatport budgets list")
    return await store.budgets.each(budget_id)


def _set_by_hand(row: BudgetRow) -> BudgetRow:
    """The budget, if it is not one of those that follow another. Raises ValueError."""
    if row.parent is not None:
        raise ValueError(
            f"The budget {row.id} follows {row.parent}, which is for each end user: change that one, or give this user "
            f"a budget of his own: chatport budgets create user:{row.subject}/{row.end_user} AMOUNT"
        )
    return row


def new_budget(  # noqa: PLR0913  each is one of the budget's properties
    kind: Kind,
    subject: str,
    given: Amount,
    period: Period,
    *,
    end_user: str | None = None,
    zone: str = "UTC",
    mode: Mode = "enforce",
) -> BudgetRow:
    """A budget that begins now."""
    from chatport.store.budgets import BudgetRow  # noqa: PLC0415

    return BudgetRow(
        id=f"bud_{secrets.token_hex(8)}",
        kind=kind,
        subject=subject,
        end_user=end_user,
        unit=given.unit,
        amount=given.amount,
        period=period,
        zone=zone,
        mode=mode,
        created_at=int(time.time()),
    )


async def _stands(store: Store, row: BudgetRow) -> BudgetStanding:
    from chatport.policy.standing import standings  # noqa: PLC0415

    [found] = await standings(store.budgets, [row], time.time())
    return found


def _words(unit: str) -> str:
    return "tokens" if unit == "token" else "money"


def _say(budget: BudgetStanding, *, as_json: bool, currency: Currency) -> None:
    if as_json:
        print_json(budget)
        return
    typer.echo(f"{budget.id}: {budget.scope}, {amount_in_words(budget, currency)}{_remarks(budget)}")


def amount_in_words(budget: BudgetStanding, currency: Currency) -> str:
    """`5.00 USD per month`."""
    from chatport.policy.limits import EACH  # noqa: PLC0415
    from chatport.policy.quantities import shown  # noqa: PLC0415

    each = shown(budget.amount, budget.unit, currency)
    words = f"{each} once" if budget.period == "once" else f"{each} per {budget.period}"
    return f"{words} each" if budget.end_user == EACH else words


def _remarks(budget: BudgetStanding) -> str:
    words = [
        f" from midnight in {budget.zone}" if budget.period != "once" and budget.zone != "UTC" else "",
        " (only reports)" if budget.mode == "report" else "",
        f" (ended {moment(budget.ended_at)})" if budget.ended_at is not None else "",
    ]
    return "".join(words)


def _print_budgets(found: list[BudgetStanding], currency: Currency) -> None:
    from chatport.policy.quantities import shown  # noqa: PLC0415

    rows = [
        [
            budget.id,
            budget.scope,
            f"{amount_in_words(budget, currency)}{_remarks(budget)}",
            *(shown(value, budget.unit, currency) for value in (budget.posted, budget.held, budget.remaining)),
            "-" if budget.renews_at is None else moment(budget.renews_at),
        ]
        for budget in found
    ]
    print_table(["id", "of", "budget", "used", "held", "left", "renewed"], rows, whole=2)
