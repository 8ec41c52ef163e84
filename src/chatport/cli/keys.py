"""`chatport keys`: who may use the server. Works through the database; a running server notices within a second."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar

import msgspec
import typer
from msgspec import Struct

from chatport.cli.database import on_store
from chatport.cli.durations import seconds_of
from chatport.cli.endings import told
from chatport.cli.limits import Amount, amount_of, rules_of
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import Config, load

if TYPE_CHECKING:
    from chatport.policy.keys import Keys
    from chatport.policy.quantities import Amount as Quantity
    from chatport.store.budgets import BudgetRow, Period
    from chatport.store.keys import KeyRow

Result = TypeVar("Result")
State: TypeAlias = Literal["open", "expired", "revoked"]

keys = typer.Typer(
    help="The keys that open the server: create, list, revoke. A running server notices within a second.",
    no_args_is_help=True,
)


class KeyEntry(Struct, frozen=True, kw_only=True):
    """A key in the commands' JSON. Times are Unix seconds."""

    id: str
    name: str
    prefix: str
    """How the key begins; the key itself is not stored."""
    admin: bool
    models: list[str] | None
    """The models it may use, None for every one."""
    owner: str | None = None
    """Who it was given to."""
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    state: State
    """Only an open one lets anybody in."""


class NewKeyEntry(KeyEntry, frozen=True, kw_only=True):
    """A key just made, in `keys create --json`."""

    key: str
    """Shown this once."""
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    budget: str | None
    """The id of its budget."""


@keys.command()
def create(  # noqa: PLR0913, PLR0917  each is an option
    name: Annotated[str, typer.Option("--name", "-n", help="What the key is for, to tell it apart later.")] = "cli",
    admin: Annotated[bool, typer.Option("--admin", help="A key for the admin API.")] = False,
    models: Annotated[
        str | None, typer.Option("--models", metavar="A,B", help="The models it may use. Default: every one.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Who it is given to. The limits of an owner hold for all keys of it.")
    ] = None,
    rpm: Annotated[
        Amount, typer.Option("--rpm", metavar="N", parser=amount_of, help="Requests per minute. Default: any.")
    ] = None,
    tpm: Annotated[
        Amount, typer.Option("--tpm", metavar="N", parser=amount_of, help="Tokens per minute. Default: any.")
    ] = None,
    concurrency: Annotated[
        Amount,
        typer.Option("--concurrency", metavar="N", parser=amount_of, help="Requests at the same time. Default: any."),
    ] = None,
    expires: Annotated[
        int | None,
        typer.Option("--expires", metavar="30d", parser=seconds_of, help="When it ends: 90s, 15m, 12h, 30d, 8w."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="5usd/month", help="Or 100000tok/day, or 10usd, once.")
    ] = None,
    keep_content: Annotated[
        bool | None,
        typer.Option(
            "--keep-content/--no-keep-content",
            help="Keep what is asked and answered with its requests, or don't. Default: as the configuration says.",
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Makes a key and shows it, this once: only its hash is stored.

    Examples:

    * `chatport keys create --name laptop`
    * `chatport keys create --name trial --models gpt-4,gpt-3.5-turbo --expires 30d`
    * `chatport keys create --name app --owner alice --rpm 60 --tpm 100000 --concurrency 4`
    * `chatport keys create --name student --budget 5usd/month`
    * `export OPENAI_API_KEY=$(chatport keys create --json | jq -r .key)`
    """

    async def work(found: Keys) -> NewKeyEntry:
        now = time.time()
        new = await found.create(
            name=name,
            now=now,
            admin=admin,
            models=allowed,
            expires_at=None if expires is None else now + expires,
            owner=owner,
            rules=rules_of(rpm=rpm, tpm=tpm, concurrency=concurrency),
            keeps_content=keep_content,
            budget_for=None if budget is None else budget_for,
        )
        return NewKeyEntry(
            id=new.id,
            name=new.name,
            prefix=new.prefix,
            admin=new.admin,
            models=None if new.models is None else sorted(new.models),
            owner=new.owner,
            created_at=new.created_at,
            expires_at=new.expires_at,
            revoked_at=None,
            state="open",
            key=new.key,
            rpm=rpm,
            tpm=tpm,
            concurrency=concurrency,
            budget=made[0].id if made else None,
        )

    made: list[BudgetRow] = []

    def budget_for(key_id: str) -> BudgetRow:
        from chatport.cli.budgets import new_budget  # noqa: PLC0415  only for those who ask for one

        amount, period = given
        made.append(new_budget("key", key_id, amount, period))
        return made[0]

    with told():
        allowed = _model_names(models, configured := load(config, os.environ))
        if budget is not None:
            given = _budget_of(budget, configured)
        new = _on_keys(configured, work)
    if as_json:
        print_json(new)
        return
    typer.echo("This key is shown once; only its hash is stored. 此密钥只显示这一次。", err=True)
    typer.echo(new.key)


@keys.command("list")
def list_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Lists every key, expired and revoked ones too, oldest first.

    The keys themselves are not stored: what is shown is how they begin.
    """

    async def work(found: Keys) -> list[KeyEntry]:
        return [key_entry(row, now) for row in await found.list()]

    now = time.time()
    with told():
        entries = _on_keys(load(config, os.environ), work)
    if as_json:
        print_json(entries)
    elif not entries:
        typer.echo("There are no keys yet. Make one with: chatport keys create")
    else:
        _print_table(entries)


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or how it begins, as `keys list` shows it.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ends a key for good; requests that are running go on.

    Example: `chatport keys revoke key_1a2b3c4d5e6f7g8h`
    """

    async def work(found: Keys) -> KeyEntry:
        row = await found.revoke(key, now)
        return key_entry(msgspec.structs.replace(row, revoked_at=row.revoked_at or int(now)), now)

    now = time.time()
    with told():
        entry = _on_keys(load(config, os.environ), work)
    if as_json:
        print_json(entry)
        return
    typer.echo(f"Revoked {entry.id} ({entry.name}, {entry.prefix}…).")


def key_state(row: KeyRow, now: float) -> State:
    """Whether a key still lets anybody in. `now`: Unix seconds."""
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "open"


def key_entry(row: KeyRow, now: float) -> KeyEntry:
    """A row without its hash. `now`: Unix seconds."""
    return KeyEntry(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        admin=row.admin,
        models=None if row.models is None else sorted(row.models),
        owner=row.owner,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        state=key_state(row, now),
    )


def _budget_of(text: str, config: Config) -> tuple[Quantity, Period]:
    """What `--budget` says."""
    from chatport.cli.money import currency_of, understood  # noqa: PLC0415
    from chatport.policy.quantities import budget_of  # noqa: PLC0415

    with understood("--budget"):
        return budget_of(text, currency_of(config))


def _model_names(text: str | None, config: Config) -> list[str] | None:
    """The names in `--models`, with a word about those that nothing is configured for."""
    if text is None:
        return None
    names = [name for part in text.split(",") if (name := part.strip())]
    if not names:
        raise typer.BadParameter("Give at least one model, or leave --models out.", param_hint="--models")
    known = {name for model in config.models for name in (model.id, *model.aliases)}
    if unknown := sorted(set(names) - known):
        note = f"note: no configured model has the name {', '.join(unknown)}; configured: {', '.join(sorted(known))}."
        typer.echo(note, err=True)
    return names


def _on_keys(config: Config, work: Callable[[Keys], Awaitable[Result]]) -> Result:
    """Does the work on the keys of the configured database, and ends the program where it can't be done."""
    from chatport.policy.keys import Keys  # noqa: PLC0415

    return on_store(config, lambda store: work(Keys(store.keys)))


@asynccontextmanager
async def opened_keys(config: Config) -> AsyncIterator[Keys]:
    """The keys of the configured database. Raises StoreError."""
    from chatport.policy.keys import Keys  # noqa: PLC0415
    from chatport.store import open_store  # noqa: PLC0415

    async with open_store(config.store_url, durability=config.store.durability) as store:
        yield Keys(store.keys)


def _print_table(entries: list[KeyEntry]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415

    # On a narrow terminal the other columns give way: ids and prefixes are there to be copied.
    widths = {"id": 20, "begins": 17, "kind": 5, "state": 7}
    whole = (Column(title, no_wrap=True, min_width=width) for title, width in widths.items())
    folded = (Column(title, overflow="fold") for title in ("name", "owner", "models"))
    table = Table(*whole, *folded, box=None, header_style="bold")
    for entry in entries:
        table.add_row(
            entry.id,
            f"{entry.prefix}…",
            "admin" if entry.admin else "api",
            entry.state,
            entry.name,
            entry.owner or "",
            "all" if entry.models is None else ", ".join(entry.models),
        )
    Console(soft_wrap=True, markup=False, highlight=False).print(table)
