"""`chatport owners`: by how much what an owner's keys pay differs from what it costs."""

from __future__ import annotations

import os
import time
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from chatport.cli.database import on_store
from chatport.cli.endings import told
from chatport.cli.money import actor, moment, print_table, understood
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import load

if TYPE_CHECKING:
    from chatport.store import Store
    from chatport.store.owners import OwnerRow

MILLION = 1_000_000
LARGEST = 1000

owners = typer.Typer(
    help="Owners of keys, and what they pay. A running server notices within a second.", no_args_is_help=True
)


class OwnerEntry(Struct, frozen=True, kw_only=True):
    """An owner in the commands' JSON."""

    name: str
    factor_ppm: int
    """charge = cost x factor; millionths."""
    keys: int
    """How many keys there are of it, expired and revoked ones too."""
    created_at: int | None
    """Unix seconds; None: nothing was set for it, so that it pays what it costs."""


@owners.command("list")
def list_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Lists every owner that has keys, or that something was set for."""

    with told():
        found = on_store(load(config, os.environ), _entries)
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("No key has an owner, and nothing was set for one.")
    else:
        rows = [
            [each.name, factor_in_words(each.factor_ppm), str(each.keys), moment(each.created_at)] for each in found
        ]
        print_table(["owner", "factor", "keys", "set"], rows)


@owners.command("set")
def set_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The owner, as keys name it.")],
    factor: Annotated[
        str, typer.Option("--factor", metavar="1.2", help="What it pays for what costs 1; up to 6 decimals.")
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sets what the keys of an owner pay: charge = cost x factor. Budgets of money count the charge.

    Requests from then on pay so; what is posted stays.

    Example: `chatport owners set alice --factor 1.2`
    """

    async def work(store: Store) -> OwnerEntry:
        from chatport.store.owners import OwnerRow  # noqa: PLC0415

        row = OwnerRow(name=name, factor_ppm=ppm, created_at=int(time.time()))
        await store.owners.put(row, actor())
        return next(entry for entry in await _entries(store) if entry.name == name)

    with told():
        with understood("NAME"):
            _checked(name)
        with understood("--factor"):
            ppm = factor_of(factor)
        entry = on_store(load(config, os.environ), work)
    if as_json:
        print_json(entry)
        return
    typer.echo(f"{entry.name}: what costs 1 is charged at {factor_in_words(entry.factor_ppm)}.")
    if not entry.keys:
        typer.echo(f"note: no key has the owner {entry.name} yet.", err=True)


def factor_of(text: str) -> int:
    """Millionths. Raises ValueError."""
    try:
        ppm = Decimal(text.strip()) * MILLION
    except InvalidOperation:
        ppm = Decimal("NaN")
    if not (ppm.is_finite() and 0 <= ppm <= LARGEST * MILLION and ppm == ppm.to_integral_value()):
        raise ValueError(f"{text!r} is no factor; write a number from 0 to {LARGEST} with at most 6 decimals, as 1.2.")
    return int(ppm)


def factor_in_words(ppm: int) -> str:
    whole, fraction = divmod(ppm, MILLION)
    return f"{whole}.{fraction:06}".rstrip("0").rstrip(".")


def _checked(name: str) -> None:
    if not (0 < len(name) <= 100 and name.isprintable()) or name == "*":
        raise ValueError(f"{name!r} is no owner; its name has 1 to 100 printable characters.")


async def _entries(store: Store) -> list[OwnerEntry]:
    set_: dict[str, OwnerRow] = {row.name: row for row in await store.owners.all()}
    keys = [row.owner for row in await store.keys.all() if row.owner is not None]
    return [
        OwnerEntry(
            name=name,
            factor_ppm=set_[name].factor_ppm if name in set_ else MILLION,
            keys=keys.count(name),
            created_at=set_[name].created_at if name in set_ else None,
        )
        for name in sorted({*set_, *keys})
    ]
