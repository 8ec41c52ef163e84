"""`chatport prices`: what models cost. Works through the database; a running server notices within a second."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import typer
from msgspec import Struct, ValidationError, convert, json

from chatport.cli.endings import Ending, end, store_told, told
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import Config, ModelConfig, PriceConfig, RoutedModel, load
from chatport.config.pricing import PER_REQUEST, PER_TOKEN, TOKEN_DIGITS
from chatport.providers import PRICED_AS

if TYPE_CHECKING:
    from chatport.store.prices import PriceRow, PriceRows, Replaced

Result = TypeVar("Result")
State: TypeAlias = Literal["in_force", "planned", "superseded", "ended"]

ACTOR = "command line"

prices = typer.Typer(
    help="What models cost: import a list, set prices, list them. A running server notices within a second.",
    no_args_is_help=True,
)


class PriceEntry(Struct, frozen=True, kw_only=True):
    """A price in the commands' JSON. Times are Unix seconds."""

    id: str
    """What postings call it."""
    model: str
    """The model's id, or an entry of a list, PROVIDER/MODEL."""
    source: str
    state: State
    rates: dict[str, Any]
    """Pico-dollars per token by kind; `request` per request; `tiers` and `hours` where there are any."""
    effective_at: int
    created_at: int
    ended_at: int | None


class Imported(Struct, frozen=True, kw_only=True):
    """What `prices import --json` prints."""

    source: str
    models: int
    """Entries that have a price now."""
    added: int
    ended: int
    unchanged: int
    missing: tuple[str, ...]
    """Entries that were looked for and are not in the list; what an earlier list said of them stays."""


@prices.command("import")
def import_command(
    every: Annotated[bool, typer.Option("--all", help="The whole list, not only what is configured.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copies the prices of genai-prices into the database: of the models that the configuration sends to its providers.

    The list is part of the package genai-prices (`pip install 'chatport[prices]'`); nothing is fetched. A newer list
    is imported by upgrading the package and calling this again: what changed is a new version, what did not stays.
    """
    with told():
        configured = load(config, os.environ)
    try:
        from chatport.cli import price_list  # noqa: PLC0415  an extra, and a third of a second
    except ImportError:
        end(Ending.FAILED, "The list of prices is not installed. Install it with: pip install 'chatport[prices]'")
    now = int(time.time())
    name = price_list.source()
    typer.echo(f"Reading {name} …", err=True)
    wanted = dict.fromkeys(price_list.everything() if every else ())
    for entry in listed_entries(configured):
        wanted |= dict.fromkeys(price_list.entries_of(entry[:-2]) if entry.endswith("/*") else (entry,))
    found = {entry: price_list.rows_of(entry, now) for entry in wanted}
    rows = [row for each in found.values() for row in each]
    missing = tuple(entry for entry, each in found.items() if not each)
    concerned = found.keys() - set(missing)

    async def work(store: PriceRows) -> Replaced:
        return await store.replace(rows, lambda row: _is_listed(row) and row.model in concerned, now, ACTOR)

    done = _on_prices(configured, work)
    said = Imported(
        source=name,
        models=len(concerned),
        added=len(done.added),
        ended=len(done.ended),
        unchanged=len(done.kept),
        missing=missing,
    )
    if as_json:
        print_json(said)
        return
    typer.echo(
        f"{name}: {said.models} models; {said.added} prices added, {said.ended} ended, {said.unchanged} unchanged."
    )
    for entry in missing:
        typer.echo(f"note: the list has no price for {entry}; set one with: chatport prices set", err=True)
    if not wanted:
        typer.echo("note: no configured model is at a provider of the list. All of it: --all", err=True)


@prices.command("list")
def list_command(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="ID", help="Only what concerns this model, or this PROVIDER/MODEL of a list."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists prices by model, oldest first: USD per million tokens.

    A model's own prices win over those that a list has for its targets: `configuration` over `command` over `embedded`.
    """
    with told():
        configured = load(config, os.environ)

    async def work(store: PriceRows) -> list[PriceRow]:
        return await (store.all() if every else store.open())

    names = None if model is None else {model, *_entries_for(model, configured)}
    rows = [row for row in _on_prices(configured, work) if names is None or row.model in names]
    rows.sort(key=lambda row: (row.model, row.effective_at, row.created_at))
    entries = price_entries(rows, time.time())
    if as_json:
        print_json(entries)
    elif not entries:
        typer.echo("There are no prices. Import a list with: chatport prices import")
    else:
        _print_table(entries)


@prices.command("set")
def set_command(  # noqa: PLR0913  an option for each kind of token
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or a family's, NAME/*.")],
    prompt: Annotated[str, typer.Option(help="Tokens of the prompt, USD per million.")],
    completion: Annotated[str, typer.Option(help="Tokens of the answer.")],
    cached: Annotated[str | None, typer.Option(help="Tokens of the prompt from the cache.")] = None,
    cache_write: Annotated[str | None, typer.Option(help="Tokens of the prompt written to it.")] = None,
    audio_prompt: Annotated[str | None, typer.Option(help="Tokens of audio in the prompt.")] = None,
    image: Annotated[str | None, typer.Option(help="Tokens of images in the prompt.")] = None,
    reasoning: Annotated[str | None, typer.Option(help="Tokens of the answer that are thoughts.")] = None,
    audio_completion: Annotated[str | None, typer.Option(help="Tokens of audio in the answer.")] = None,
    request: Annotated[str | None, typer.Option(help="Each request besides, USD.")] = None,
    begins: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DATE", help="The day it begins (midnight UTC), or a time: 2027-01-01[T08:00Z]."
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sets what a model costs, in USD per million tokens. A kind that is not given costs what its side costs.

    Example: `chatport prices set gpt-4o-mini --prompt 0.15 --completion 0.6 --cached 0.075`
    """
    given = {
        "prompt": prompt,
        "completion": completion,
        "cached": cached,
        "cache_write": cache_write,
        "audio_prompt": audio_prompt,
        "image": image,
        "reasoning": reasoning,
        "audio_completion": audio_completion,
        "request": request,
    }
    now = int(time.time())
    pico = _pico(given)
    effective_at = now if begins is None else _moment(begins)
    with told():
        configured = load(config, os.environ)

    async def work(store: PriceRows) -> Replaced:
        from chatport.policy.prices import Rates, new_row  # noqa: PLC0415
        from chatport.store.prices import COMMAND  # noqa: PLC0415

        return await store.set(new_row(model, COMMAND, convert(pico, Rates), now, effective_at), ACTOR)

    done = _on_prices(configured, work)
    _note_about(model, configured)
    [entry] = price_entries(done.added, now)
    if as_json:
        print_json(entry)
        return
    typer.echo(f"{model} costs {_shown(entry.rates)} from {_day(entry)} on ({entry.id}).")


@prices.command()
def unset(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Takes back what `prices set` said of a model, and what it is to cost later."""

    async def work(store: PriceRows) -> Replaced:
        from chatport.store.prices import COMMAND  # noqa: PLC0415

        return await store.replace((), lambda row: (row.model, row.source) == (model, COMMAND), now, ACTOR)

    now = int(time.time())
    with told():
        configured = load(config, os.environ)
    done = _on_prices(configured, work)
    if not done.ended:
        end(Ending.FAILED, f"No price was set for {model}. `chatport prices list` shows those that were.")
    if as_json:
        print_json([entry.id for entry in done.ended])
        return
    typer.echo(f"Ended {', '.join(entry.id for entry in done.ended)}.")


def listed_entries(config: Config) -> list[str]:
    """PROVIDER/MODEL of all that the configuration sends to a provider of the list; PROVIDER/* for a family's."""
    return list(dict.fromkeys(entry for model in config.models for entry in _entries(model)))


def _entries(model: ModelConfig) -> Iterator[str]:
    if model.price_model is not None:
        yield model.price_model
    elif isinstance(model, RoutedModel):
        for target in model.targets:
            provider = PRICED_AS.get(target.provider or "")
            if provider is not None:
                yield f"{provider}/*" if model.passes_all else f"{provider}/{target.model or model.id}"


def _entries_for(name: str, config: Config) -> Iterator[str]:
    """What a list calls the model with this id, or a model of a family."""
    for model in config.models:
        if model.id == name:
            yield from _entries(model)
        elif model.id.endswith("/*") and name.startswith(model.id[:-1]):
            yield model.id
            yield from (entry[:-1] + name.removeprefix(model.id[:-1]) for entry in _entries(model))


def price_entries(rows: list[PriceRow] | tuple[PriceRow, ...], now: float) -> list[PriceEntry]:
    """Rows with what has become of them. `now`: Unix seconds."""
    from chatport.store.prices import family  # noqa: PLC0415

    holding: dict[tuple[str, str], PriceRow] = {}
    for row in rows:
        if row.ended_at is None and row.effective_at <= now:
            place = (row.model, family(row.source))
            holding[place] = max(row, holding.get(place, row), key=lambda each: (each.effective_at, each.created_at))
    in_force = {row.id for row in holding.values()}

    def state(row: PriceRow) -> State:
        if row.ended_at is not None:
            return "ended"
        if row.effective_at > now:
            return "planned"
        return "in_force" if row.id in in_force else "superseded"

    return [
        PriceEntry(
            id=row.id,
            model=row.model,
            source=row.source,
            state=state(row),
            rates=json.decode(row.rates),
            effective_at=row.effective_at,
            created_at=row.created_at,
            ended_at=row.ended_at,
        )
        for row in rows
    ]


def _is_listed(row: PriceRow) -> bool:
    from chatport.store.prices import LISTED, family  # noqa: PLC0415

    return family(row.source) == LISTED


def _pico(given: dict[str, str | None]) -> dict[str, int]:
    """Options to pico-dollars; one that is no price ends the command with a sentence."""
    fields: dict[str, Decimal] = {}
    for name, text in given.items():
        if text is None:
            continue
        try:
            fields[name] = Decimal(text)
            # Each by itself, so that the message can name it.
            _ = PriceConfig(**{"prompt": Decimal(0), "completion": Decimal(0), name: fields[name]}).pico
        except (InvalidOperation, ValueError, ValidationError):
            allowed = PER_REQUEST if name == "request" else PER_TOKEN
            hint = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{text!r} is not allowed; allowed: {allowed}.", param_hint=hint) from None
    return PriceConfig(**fields).pico


def _moment(text: str) -> int:
    """Unix seconds of a day or a time; without a zone it is UTC."""
    try:
        if len(text) == len("2027-01-01"):
            found = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        else:
            found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no date; write 2027-01-01 or 2027-01-01T08:00Z.", param_hint="--from"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _note_about(model: str, config: Config) -> None:
    """A word where the price has no effect, or may have none."""
    entry = next((entry for entry in config.models if entry.id == model), None)
    if entry is None:
        typer.echo(f"note: the configuration has no model with the id {model}.", err=True)
    elif entry.price is not None:
        typer.echo(f"note: the configuration has a price for {model}, which wins.", err=True)


def _on_prices(config: Config, work: Callable[[PriceRows], Awaitable[Result]]) -> Result:
    """Opens the store and does the work, or ends the program with a sentence."""
    from chatport.store import open_store  # noqa: PLC0415

    async def run() -> Result:
        async with open_store(config.store_url, durability=config.store.durability) as store:
            return await work(store.prices)

    with store_told():
        return asyncio.run(run())


def _usd(pico: int) -> str:
    """Pico-dollars a token as USD per million tokens."""
    text = f"{Decimal(pico).scaleb(-TOKEN_DIGITS):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(rates: dict[str, Any]) -> str:
    prompt, completion = _usd(rates.get("prompt", 0)), _usd(rates.get("completion", 0))
    return f"{prompt} USD per million tokens of the prompt and {completion} of the answer"


def _day(entry: PriceEntry) -> str:
    at = datetime.fromtimestamp(max(entry.effective_at, entry.created_at), UTC)
    return f"{at:%Y-%m-%d}" if entry.state == "planned" and not (at.hour or at.minute) else f"{at:%Y-%m-%d %H:%M} UTC"


def _print_table(entries: list[PriceEntry]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415

    left = [Column(title, no_wrap=True) for title in ("model", "source")]
    amounts = [Column(title, justify="right", no_wrap=True) for title in ("prompt", "cached", "completion")]
    right = [Column(title, no_wrap=True) for title in ("state", "since", "id")]
    table = Table(*left, *amounts, *right, box=None, header_style="bold")
    for entry in entries:
        kinds = (entry.rates.get("prompt", 0), entry.rates.get("cached"), entry.rates.get("completion", 0))
        more = "+" if entry.rates.keys() - {"prompt", "cached", "completion"} else ""
        shown = ["" if pico is None else _usd(pico) for pico in kinds]
        since = f"{datetime.fromtimestamp(max(entry.effective_at, entry.created_at), UTC):%Y-%m-%d}"
        table.add_row(
            entry.model, entry.source, *shown[:2], shown[2] + more, entry.state.replace("_", " "), since, entry.id
        )
    # As wide as it must be: names and ids are there to be copied.
    Console(width=1000, soft_wrap=True, markup=False, highlight=False).print(table)
    typer.echo("USD per million tokens. +: more kinds, tiers or hours; --json shows them.", err=True)
