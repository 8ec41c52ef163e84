"""The words of the account: what is held, what is posted, and what a transaction may be asked to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import Connection

Ending: TypeAlias = Literal["complete", "cut", "client_gone", "stopped", "upstream_error", "refused", "crash"]
"""How a request ended: whole; cut by a budget; its client left; the server stopped; the upstream broke; it was refused
before anything was made; its worker died."""

Unit: TypeAlias = Literal["nano", "token"]

CountedBy: TypeAlias = Literal["upstream", "tokenizer", "estimate"]

Place: TypeAlias = tuple[str, int]
"""A balance: its budget's id, and when the period began."""


class Claim(Struct, frozen=True):
    """What a request may take from one budget, as a function of its output.

    In the budget's unit (nano-dollars or tokens), rounded up once: `(base + each * output) / scale`.
    """

    budget_id: str
    period: int
    base: int
    """The prompt, and what a request costs by itself."""
    each: int
    """One token of output."""
    scale: int
    unit: Unit
    enforced: bool = True
    """Otherwise it is only reported: counted, and never refused."""
    parent: str | None = None
    """Of one end user's budget that may have to be made: the one for each, after which it is."""
    end_user: str | None = None

    @property
    def place(self) -> Place:
        return self.budget_id, self.period

    def amount(self, output: int) -> int:
        """What so many tokens of output come to, with the prompt."""
        return -(-(self.base + self.each * output) // self.scale)

    def room(self, available: int, wanted: int) -> int:
        """The most tokens of output up to `wanted` that so much pays for; negative where the prompt is too much."""
        if self.amount(wanted) <= max(available, 0):
            return wanted  # what costs nothing is paid for, however little there is
        if self.each == 0 or self.amount(0) > available:
            return -1
        return (available * self.scale - self.base) // self.each

    def held(self, output: int) -> Held:
        """What is held for so many tokens of output."""
        return Held(self.budget_id, self.period, self.amount(output), self.unit, self.enforced)


class Held(Struct, frozen=True, array_like=True):
    """What is held for a request of one budget, in its unit."""

    budget_id: str
    period: int
    amount: int
    unit: Unit
    enforced: bool = True

    @property
    def place(self) -> Place:
        return self.budget_id, self.period


class HoldAccount(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose request it is, and what is needed to settle it without whoever began it."""

    key_id: str
    owner: str | None = None
    end_user: str | None = None
    model: str
    target: str
    attempts: int = 1
    streamed: bool = False
    price_id: str | None = None
    rates: Any = None
    """As the price says them; None: no price."""
    factor_ppm: int = 1_000_000
    held_nano: int = 0
    held: tuple[Held, ...] = ()


class HoldRow(Struct, frozen=True, kw_only=True):
    """A request under way, as far as its last checkpoint knows it."""

    request_id: str
    worker_id: str
    created_ms: int
    account: HoldAccount
    prompt_tokens: int
    completion_tokens: int


class PostingRow(Struct, frozen=True):
    """One line of the account, and the record of one request. Times are Unix milliseconds, spans milliseconds."""

    id: str
    created_ms: int
    settled_ms: int
    kind: Literal["request", "grant", "correction", "carry"] = "request"
    key_id: str | None = None
    owner: str | None = None
    end_user: str | None = None
    model: str | None = None
    target: str | None = None
    attempts: int = 0
    streamed: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    audio_prompt_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    audio_completion_tokens: int = 0
    counted_by: CountedBy = "upstream"
    held_nano: int = 0
    cost_nano: int = 0
    charge_nano: int = 0
    price_id: str | None = None
    factor_ppm: int = 1_000_000
    ending: Ending = "complete"
    over_hold: bool = False
    error: str | None = None
    queue_ms: int = 0
    first_ms: int | None = None
    total_ms: int = 0
    note: str | None = None


class AttemptRow(Struct, frozen=True, kw_only=True):
    """One try at one target."""

    request_id: str
    number: int
    target: str
    model: str
    began_ms: int
    ended_ms: int
    outcome: str
    cost_nano: int = 0


# --- What is written -------------------------------------------------------------------------------------------------


class Hold(Struct, frozen=True, kw_only=True):
    """Asks for a hold, or for another one in the place of that which a request has."""

    row: HoldRow
    """`account.held`: what is held so far; with none, the hold is new."""
    new: bool
    claims: tuple[Claim, ...]
    least: int
    """Tokens of output that it must be able to pay for."""
    most: int
    """Tokens of output that it is to pay for, where there is room."""
    wanted: int
    """Tokens of output that the request may come to in the end."""
    patient: bool = False
    """It is rather refused for now than given less than it could have if nobody else held anything."""


class Placed(Struct, frozen=True):
    """The hold is there: it pays for so many tokens of output."""

    output: int
    held: tuple[Held, ...]
    affordable: int
    """Tokens of output, up to `Hold.wanted`, that the budgets could pay for if nobody else held anything."""


class NoRoom(Struct, frozen=True):
    """A budget has no room for it now; nothing was changed."""

    budget_id: str
    period: int
    needed: int
    """In the budget's unit, for the least that it asked for."""
    limit: int
    posted: int
    held: int

    @property
    def exhausted(self) -> bool:
        """What is posted leaves too little, whatever becomes of the others' holds."""
        return self.limit - self.posted < self.needed


class Lost(Struct, frozen=True):
    """The hold is not there any more: somebody took its worker for dead and settled it."""


Answer: TypeAlias = Placed | NoRoom | Lost


class Checkpoint(Struct, frozen=True, kw_only=True):
    """How far an answer is, for the case that nobody is left to say it."""

    request_id: str
    prompt_tokens: int
    completion_tokens: int


class Settlement(Struct, frozen=True, kw_only=True):
    """The end of a request: its hold goes, its posting stays."""

    posting: PostingRow
    taken: tuple[Held, ...] = ()
    """What it came to, of each budget that it falls under."""
    attempts: tuple[AttemptRow, ...] = ()
    also: tuple[Callable[[Connection], None], ...] = ()
    """What is to be there when the posting is, whoever posted it; may be written twice, and must not mind."""


Write: TypeAlias = Hold | Checkpoint | Settlement
