"""What the commands of the account share: amounts in the configured currency, arguments that teach, and who it was."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from chatport.config import Config

if TYPE_CHECKING:
    from chatport.policy.quantities import Currency
    from chatport.store import Store
    from chatport.store.budgets import BudgetRow, Kind


def currency_of(config: Config) -> Currency:
    """What amounts are shown in."""
    from chatport.policy.quantities import Currency  # noqa: PLC0415

    return Currency.of(config.ledger.currency, config.ledger.currency_rate)


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Turns the ValueError of an argument that can't be understood into a usage error. `name`: the argument's."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from error


def actor() -> str:
    """Who changes something, for the audit log: the account on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return "cli"


def moment(seconds: float | None) -> str:
    """Unix seconds for people."""
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, whole: int = 1, right: int | None = None
) -> None:
    """A table; the first `whole` columns are never cut, those from `right` on are numbers."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415

    columns = [
        Column(
            title,
            no_wrap=number < whole,
            overflow="fold",
            justify="right" if right is not None and number >= right else "left",
            min_width=max((len(row[number]) for row in rows), default=0) if number < whole else None,
        )
        for number, title in enumerate(titles)
    ]
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True, markup=False, highlight=False).print(table)


SCOPES = "write key:ID, owner:NAME, model:ID, user:KEY_ID/USER for one end user of a key, or user:KEY_ID/* for each"


async def scope_named(store: Store, config: Config, text: str) -> tuple[Kind, str, str | None]:
    """Kind, subject and end user of a scope as it was typed. Raises ValueError; NotFound for a key that there is not.
    A name that nothing has yet gets a remark: it may get it."""
    word, _, subject = text.partition(":")
    if word not in {"key", "owner", "model", "user"} or not subject:
        raise ValueError(f"{text!r} is no scope; {SCOPES}.")
    if subject == "*":
        raise ValueError(f"{text!r}: only end users can have a budget each; {SCOPES}.")
    match word:
        case "key":
            return "key", await key_id_of(store, subject), None
        case "user":
            key, slash, user = subject.partition("/")
            if not (slash and user):
                raise ValueError(f"{text!r} names no end user; write user:KEY_ID/USER, or user:KEY_ID/* for each.")
            return "user", await key_id_of(store, key), user
        case "model":
            return "model", _model_named(config, subject), None
    if subject not in {row.owner for row in await store.keys.all()}:
        typer.echo(f"note: no key has the owner {subject} yet.", err=True)
    return "owner", subject, None


async def key_id_of(store: Store, id_or_prefix: str) -> str:
    """The id of a key. Raises NotFound; InvalidRequest for a prefix of several."""
    from chatport.wire.errors import InvalidRequest, NotFound, quote  # noqa: PLC0415

    found = [row.id for row in await store.keys.all() if id_or_prefix in {row.id, row.prefix}]
    if not found:
        raise NotFound(f"No key with the id or prefix {quote(id_or_prefix)}. Those that there are: chatport keys list")
    if len(found) > 1:
        raise InvalidRequest(
            f"The prefix {quote(id_or_prefix)} is that of several keys. Give an id: {', '.join(found)}."
        )
    return found[0]


def _model_named(config: Config, name: str) -> str:
    """The model's id; an alias becomes it."""
    known = {alias: model.id for model in config.models for alias in (model.id, *model.aliases)}
    if name not in known:
        typer.echo(f"note: no configured model has the name {name}; configured: {', '.join(sorted(known))}.", err=True)
    return known.get(name, name)


async def budget_named(store: Store, budget_id: str) -> BudgetRow:
    """A budget in force. Raises ValueError."""
    row = await store.budgets.one(budget_id)
    if row is None:
        raise ValueError(f"There is no budget {budget_id}. Those that there are: chatport budgets list")
    if row.ended_at is not None:
        raise ValueError(f"The budget {budget_id} has ended, {moment(row.ended_at)}. Make a new one.")
    return row
