"""`chatport explain` and `chatport audit`: one request from beginning to end, and who has changed what."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import json

from chatport.cli.database import on_store
from chatport.cli.endings import told
from chatport.cli.money import currency_of, moment
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import load

if TYPE_CHECKING:
    from chatport.policy.quantities import Currency
    from chatport.policy.story import Story
    from chatport.store import Store
    from chatport.store.audit import AuditRow


def explain(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="A reply's x-request-id: req_…")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tells the whole story of one request: who asked, what answered, what was held, used and charged, how it ended.

    Example: `chatport explain req_0123456789abcdef01234567`
    """
    from chatport.policy.story import told as story_of  # noqa: PLC0415

    async def work(store: Store) -> Story:
        return story_of(await store.records.one(request_id), request_id)

    with told():
        configured = load(config, os.environ)
        story = on_store(configured, work)
    if as_json:
        print_json(story)
        return
    for line in in_words(story, currency_of(configured)):
        typer.echo(line)


def audit(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many, the newest first.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists who changed which key, budget, price or limit, when, from what to what."""

    async def work(store: Store) -> list[AuditRow]:
        return await store.audit.latest(limit)

    with told():
        configured = load(config, os.environ)
        rows = on_store(configured, work)
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo("Nothing was changed yet.")
    for row in () if as_json else rows:
        typer.echo(f"{moment(row.at_ms / 1000)}  {row.actor}  {row.action}  {row.subject}")
        for word, value in (("before", row.before), ("after", row.after)):
            if value is not None:
                typer.echo(f"  {word:7}{json.encode(value).decode()}")


def in_words(story: Story, currency: Currency) -> list[str]:
    """The story, a line for each thing worth knowing."""
    from chatport.policy.quantities import shown  # noqa: PLC0415

    def money(nano: int) -> str:
        return shown(nano, "nano", currency)

    who = f"{story.key_id}" + (f" ({story.key_name})" if story.key_name else "")
    lines = [
        f"{story.id}: {story.state}" + (f", {story.ending}" if story.ending else ""),
        f"asked      {moment(story.created_at)} by {who}, owner {story.owner or '-'}, end user {story.end_user or '-'}",
        f"answered   by {story.target} for the model {story.model}, attempt {story.attempts}"
        + (", streamed" if story.streamed else ""),
    ]
    lines += [
        f"  attempt {one.number} at {one.target} failed after {one.ms} ms: {one.outcome}"
        for one in story.failed_attempts
    ]
    if story.settled_at is not None:
        first = "-" if story.first_ms is None else f"{story.first_ms} ms"
        lines.append(f"took       queue {story.queue_ms} ms, first token {first}, in all {story.total_ms} ms")
    if story.error is not None:
        lines.append(f"error      {story.error}")
    tokens = story.tokens
    lines.append(
        f"tokens     prompt {tokens.prompt} (cached {tokens.cached}), completion {tokens.completion} "
        f"(reasoning {tokens.reasoning}), counted by: {story.counted_by or 'the last checkpoint'}"
    )
    if story.price is None:
        lines.append("price      none")
    else:
        lines.append(f"price      {story.price.id} ({story.price.source or 'not in the database'})")
        lines += [f"  {line.kind}: {line.tokens} x {line.pico_each} = {line.pico} pico-dollars" for line in story.lines]
    lines.append(
        f"held       {money(story.held_nano)}; cost {money(story.cost_nano)} x {story.factor_ppm / 1e6:g} = "
        f"charge {money(story.charge_nano)}" + ("  OVER ITS HOLD" if story.over_hold else "")
    )
    lines += [
        f"budget     {one.budget_id} ({one.scope or '-'}): {shown(one.amount, one.unit, currency)}"
        for one in story.budgets
    ]
    if story.content is not None:
        lines += [
            f"request    {story.content.request!s}"
            if isinstance(story.content.request, str)
            else f"request    {json.encode(story.content.request).decode()}",
            f"reply      {'-' if story.content.reply is None else json.encode(story.content.reply).decode()}",
        ]
    return lines
