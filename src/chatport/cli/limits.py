"""`chatport limits`: how much may be asked for. Through the database; a running server notices within a second."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeAlias

import typer
from msgspec import Struct

from chatport.cli.database import on_store
from chatport.cli.endings import Ending, end, told
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import Config, load
from chatport.config.limits import AMOUNTS, MOST

if TYPE_CHECKING:
    from chatport.store import Store
    from chatport.store.limits import Kind, Limit, LimitRow, Rules

Amount: TypeAlias = int | None
Mode: TypeAlias = Literal["enforce", "report"]

KINDS: tuple[Kind, ...] = ("key", "owner", "model", "user")

ALLOWED = (
    "Write key:ID, owner:NAME, model:ID, or user:KEY_ID for each end user of a key; with * instead of the name, as in "
    "key:*, the limit is for each one that has none of its own."
)

ACTOR = "limits"
"""Who makes these changes, for the audit log."""

limits = typer.Typer(
    help="How much keys, owners, models and end users may ask for. A running server notices within a second.",
    no_args_is_help=True,
)

Scope = Annotated[
    str, typer.Argument(metavar="SCOPE", help="Whose limit: key:ID, owner:NAME, model:ID or user:KEY_ID; * is each.")
]


def amount_of(text: str) -> int:
    """A typer parser. Raises BadParameter, which says what is allowed."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) and 0 < int(text) <= MOST):
        raise typer.BadParameter(f"{text!r} is not allowed; write a whole number from 1 to {MOST}.")
    return int(text)


class LimitEntry(Struct, frozen=True, kw_only=True):
    """A limit in the commands' JSON."""

    scope: str
    rpm: int | None
    rph: int | None
    rpd: int | None
    tpm: int | None
    tph: int | None
    tpd: int | None
    concurrency: int | None
    mode: Mode
    source: Literal["database", "file"]
    changed_at: int | None
    """Unix seconds; None for those of the file."""


@limits.command("set")
def set_command(  # noqa: PLR0913, PLR0917  each is an option
    scope: Scope,
    rpm: Annotated[Amount, typer.Option("--rpm", metavar="N", parser=amount_of, help="Requests per minute.")] = None,
    rph: Annotated[Amount, typer.Option("--rph", metavar="N", parser=amount_of, help="Requests per hour.")] = None,
    rpd: Annotated[Amount, typer.Option("--rpd", metavar="N", parser=amount_of, help="Requests per day.")] = None,
    tpm: Annotated[Amount, typer.Option("--tpm", metavar="N", parser=amount_of, help="Tokens per minute.")] = None,
    tph: Annotated[Amount, typer.Option("--tph", metavar="N", parser=amount_of, help="Tokens per hour.")] = None,
    tpd: Annotated[Amount, typer.Option("--tpd", metavar="N", parser=amount_of, help="Tokens per day.")] = None,
    concurrency: Annotated[
        Amount, typer.Option("--concurrency", metavar="N", parser=amount_of, help="Requests at the same time.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option("--mode", help="report: refuse nobody, but log and count what would be refused.")
    ] = "enforce",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sets the limit of a scope, in place of the one it had: what is not given is not limited.

    Examples:

    * `chatport limits set key:key_1a2b3c4d5e6f7g8h --rpm 60 --tpm 100000`
    * `chatport limits set owner:alice --tpd 5000000 --concurrency 8`
    * `chatport limits set "key:*" --rpm 600 --mode report`
    """

    rules = rules_of(rpm=rpm, rph=rph, rpd=rpd, tpm=tpm, tph=tph, tpd=tpd, concurrency=concurrency)
    if rules is None:
        raise typer.BadParameter(
            f"Give at least one limit, such as --rpm 60. Limits are lifted with: chatport limits rm {scope}",
            param_hint="--rpm",
        )
    given = rules

    async def work(store: Store) -> LimitRow:
        from chatport.store.limits import LimitRow  # noqa: PLC0415

        kind, subject = await known_scope(store, configured, scope)
        row = LimitRow(kind=kind, subject=subject, rules=given, mode=mode, changed_at=int(time.time()))
        await store.limits.set(row, ACTOR)
        return row

    with told():
        row = on_store(configured := load(config, os.environ), work)
    if as_json:
        print_json(kept_entry(row))
        return
    typer.echo(f"{row.scope}: {in_words(kept_entry(row))}")


@limits.command("list")
def list_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Lists every limit, those of the configuration file too. All of them hold at once: the tightest refuses."""

    async def work(store: Store) -> list[LimitEntry]:
        return [kept_entry(row) for row in await store.limits.all()]

    with told():
        configured = load(config, os.environ)
        entries = [*file_entries(configured), *on_store(configured, work)]
    if as_json:
        print_json(entries)
    elif not entries:
        typer.echo('There are no limits. Set one with: chatport limits set "key:*" --rpm 60')
    else:
        _print_table(entries)


@limits.command("rm")
def remove(scope: Scope, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Lifts the limit of a scope. What `key:*` and its like say holds for it again.

    Example: `chatport limits rm owner:alice`
    """

    async def work(store: Store) -> LimitRow:
        kind, subject = await scope_of(store, scope)
        return await store.limits.remove(kind, subject, ACTOR) or _end_without(configured, f"{kind}:{subject}")

    with told():
        row = on_store(configured := load(config, os.environ), work)
    if as_json:
        print_json(kept_entry(row))
        return
    typer.echo(f"Lifted: {row.scope}, {in_words(kept_entry(row))}")


def rules_of(**amounts: int | None) -> Rules | None:
    """The rules that options give, None for none at all."""
    from chatport.store.limits import Rules  # noqa: PLC0415

    return Rules(**amounts) if any(amount is not None for amount in amounts.values()) else None


async def known_scope(store: Store, config: Config, text: str) -> tuple[Kind, str]:
    """`scope_of`, with a word about a name that nothing has yet: it may get it. An alias becomes its model's id."""
    kind, subject = await scope_of(store, text)
    if subject == "*":
        return kind, subject
    if kind == "owner" and subject not in {row.owner for row in await store.keys.all()}:
        typer.echo(f"note: no key has the owner {subject} yet.", err=True)
    if kind == "model":
        known = {name: model.id for model in config.models for name in (model.id, *model.aliases)}
        if subject not in known:
            typer.echo(f"note: no configured model has the name {subject}; configured: {', '.join(known)}.", err=True)
        elif (model := known[subject]) != subject:
            typer.echo(f"note: {subject} is a name of {model}; the limit is that model's, by whatever name.", err=True)
            subject = model
    return kind, subject


async def scope_of(store: Store, text: str) -> tuple[Kind, str]:
    """Kind and subject of a scope as it was typed. Raises ValueError; NotFound for a key that there is not."""
    from chatport.policy.keys import Keys, checked_owner  # noqa: PLC0415

    word, colon, subject = text.partition(":")
    kind = next((kind for kind in KINDS if kind == word), None)
    if kind is None or not subject:
        fault = f"{word!r} is no kind of limit" if colon and kind is None else f"{text!r} names nobody"
        raise ValueError(f"{fault}. {ALLOWED}")
    if subject == "*" or kind == "model":
        return kind, subject
    if kind == "owner":
        return kind, checked_owner(subject)
    return kind, (await Keys(store.keys).find(subject)).id


def kept_entry(row: LimitRow) -> LimitEntry:
    return _entry(row, source="database", changed_at=row.changed_at)


def file_entries(config: Config) -> list[LimitEntry]:
    """The limits of the configuration file."""
    from chatport.settings import limits_of  # noqa: PLC0415  it knows the web room

    return [_entry(limit, source="file", changed_at=None) for limit in limits_of(config)]


def in_words(entry: LimitEntry) -> str:
    """`rpm 60, concurrency 4`, with a word where it refuses nobody."""
    words = ", ".join(f"{name} {amount}" for name in AMOUNTS if (amount := getattr(entry, name)) is not None)
    return words if entry.mode == "enforce" else f"{words} (only reports)"


def _entry(limit: Limit, *, source: Literal["database", "file"], changed_at: int | None) -> LimitEntry:
    rules = limit.rules
    return LimitEntry(
        scope=limit.scope,
        rpm=rules.rpm,
        rph=rules.rph,
        rpd=rules.rpd,
        tpm=rules.tpm,
        tph=rules.tph,
        tpd=rules.tpd,
        concurrency=rules.concurrency,
        mode=limit.mode,
        source=source,
        changed_at=changed_at,
    )


def _end_without(config: Config, scope: str) -> NoReturn:
    """There is nothing to lift: says where the limit stands, if it does, or what there is."""
    if any(entry.scope == scope for entry in config.limits):
        end(Ending.FAILED, f"The limit of {scope} stands in the configuration file, {config.source}; remove it there.")
    end(Ending.FAILED, f"{scope} has no limit. Those that there are: chatport limits list")


def _print_table(entries: list[LimitEntry]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415

    # On a narrow terminal the limits give way: scopes are there to be copied.
    table = Table(
        Column("scope", no_wrap=True), Column("limits", overflow="fold"), "from", box=None, header_style="bold"
    )
    for entry in entries:
        table.add_row(entry.scope, in_words(entry), entry.source)
    Console(soft_wrap=True, markup=False, highlight=False).print(table)
