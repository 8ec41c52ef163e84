"""`chatport usage`: what was used, by whom, and what it came to."""

from __future__ import annotations

import csv
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from chatport.cli.database import on_store
from chatport.cli.endings import told
from chatport.cli.money import currency_of, print_table, understood
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import load

if TYPE_CHECKING:
    from chatport.policy.quantities import Currency
    from chatport.policy.usage import UsageEntry
    from chatport.store import Store
    from chatport.store.usage import By

GROUPS = ("key", "owner", "user", "model", "day")


def usage(
    by: Annotated[str, typer.Option("--by", metavar="GROUP", help=f"{', '.join(GROUPS)}.")] = "key",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="24h, 7d, 2026-11-01; counted from that hour on.")
    ] = "30d",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Adds up what requests used: tokens, what they cost, what is charged for them.

    Examples:

    * `chatport usage`
    * `chatport usage --by model --since 7d`
    * `chatport usage --by day --since 2026-11-01 --csv > november.csv`
    """
    from chatport.policy.quantities import since_of  # noqa: PLC0415
    from chatport.policy.usage import usage_by  # noqa: PLC0415
    from chatport.store.usage import By  # noqa: PLC0415

    async def work(store: Store) -> list[UsageEntry]:
        return await usage_by(store, group, begin)

    with told():
        configured = load(config, os.environ)
        if by not in get_args(By):
            raise typer.BadParameter(f"{by!r} is no group; write {', '.join(GROUPS)}.", param_hint="--by")
        group = cast("By", by)
        with understood("--since"):
            begin = since_of(since, time.time())
        entries = on_store(configured, work)
    if as_json:
        print_json(entries)
    elif as_csv:
        print_csv(by, entries)
    elif not entries:
        typer.echo("Nothing was used in this time.")
    else:
        _print(by, entries, currency_of(configured))


def print_csv(by: str, entries: list[UsageEntry]) -> None:
    """One row a group; amounts are nano-dollars."""
    from chatport.policy.usage import UsageEntry  # noqa: PLC0415

    names = [name for name in UsageEntry.__struct_fields__ if name != "group"]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([by, *names])
    writer.writerows([entry.group, *(getattr(entry, name) for name in names)] for entry in entries)


def _print(by: str, entries: list[UsageEntry], currency: Currency) -> None:
    from chatport.policy.quantities import shown  # noqa: PLC0415

    rows = [
        (
            entry.group or "-",
            f"{entry.requests:,}",
            f"{entry.failed:,}",
            f"{entry.prompt_tokens:,}",
            f"{entry.cached_tokens:,}",
            f"{entry.completion_tokens:,}",
            shown(entry.cost_nano, "nano", currency),
            shown(entry.charge_nano, "nano", currency),
        )
        for entry in entries
    ]
    print_table((by, "requests", "failed", "prompt", "cached", "completion", "cost", "charge"), rows, right=1)
