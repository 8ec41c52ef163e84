"""Amounts, times and zones as people write them. All of it raises ValueError with a sentence that says what is allowed.

5usd  0.25usd  30cny  100000tok  1_000_000tok       amounts; money is kept in nano-dollars
5usd/month  100000tok/day  100000tok                for each day, week or month, or once
7d  24h  2026-11-01  2026-11-01T12:00+08:00         since when
UTC  Asia/Shanghai                                  zones
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, cast, get_args
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from chatport.store.budgets import Period, Unit

NANO: Final = 10**9

MOST: Final = 9 * 10**18
"""Nano-dollars or tokens: what 64 bits hold, with room for sums."""

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

LONGEST: Final = 100 * 365 * 86_400
"""Seconds of a span: a hundred years."""

TOKENS: Final = frozenset({"tok", "token", "tokens"})

AMOUNTS: Final = "write 5usd, 0.25usd or 100000tok"

_amount = re.compile(r"(-?)(?=[0-9.])([0-9][0-9_]{0,29})?(?:\.([0-9]{1,12}))?[ ]?([A-Za-z]+)")
_span = re.compile(r"([1-9][0-9]{0,9})([smhdw])")
_unix = re.compile(r"[0-9]{9,11}")


class Currency(Struct, frozen=True):
    """What amounts are shown in, and what a dollar is in it."""

    code: str = "USD"
    rate: Decimal = Decimal(1)

    @classmethod
    def of(cls, code: str, rate: float) -> Currency:
        return cls(code, Decimal(repr(rate)))

    def shown(self, nano: int) -> str:
        """Nano-dollars in this currency: all digits down to a billionth that are not 0, two at least."""
        value = (Decimal(nano) * self.rate / NANO).quantize(Decimal("1e-9"), ROUND_HALF_EVEN)
        whole, _, fraction = f"{value:f}".partition(".")
        return f"{whole}.{fraction.rstrip('0').ljust(2, '0')} {self.code}"


DOLLARS: Final = Currency()


class Amount(Struct, frozen=True):
    """Nano-dollars or tokens."""

    unit: Unit
    amount: int

    def shown(self, currency: Currency = DOLLARS) -> str:
        """For people."""
        return shown(self.amount, self.unit, currency)


def shown(amount: int, unit: Unit, currency: Currency = DOLLARS) -> str:
    """An amount for people."""
    return f"{amount} tokens" if unit == "token" else currency.shown(amount)


def amount_of(text: str, currency: Currency = DOLLARS) -> Amount:
    """`5usd`, or as much in the configured currency, or `100000tok`; not 0, and maybe negative."""
    found = _amount.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no amount; {_allowed(currency)}.")
    sign, whole, fraction, word = found.groups()
    value = Decimal(f"{sign}{(whole or '0').replace('_', '')}.{fraction or '0'}")
    unit, amount = _in_unit(value, word, currency)
    if amount != amount.to_integral_value():
        finest = "a whole token" if unit == "token" else "a billionth of a dollar"
        raise ValueError(f"{text!r} is finer than {finest}.")
    if not 0 < abs(amount) <= MOST:
        raise ValueError(f"{text!r} is not between 1 and {MOST} {'tokens' if unit == 'token' else 'nano-dollars'}.")
    return Amount(unit, int(amount))


def _in_unit(value: Decimal, word: str, currency: Currency) -> tuple[Unit, Decimal]:
    if word.lower() in TOKENS:
        return "token", value
    if word.lower() == "usd":
        return "nano", value * NANO
    if word.upper() == currency.code:
        return "nano", (value * NANO / currency.rate).to_integral_value(ROUND_HALF_EVEN)
    raise ValueError(f"{word!r} is no unit; {_allowed(currency)}.")


def _allowed(currency: Currency) -> str:
    return AMOUNTS if currency.code == "USD" else f"{AMOUNTS}, or 5{currency.code.lower()}"


def budget_of(text: str, currency: Currency = DOLLARS) -> tuple[Amount, Period]:
    """`5usd/month`: how much, and for how long; without a period: once."""
    text, slash, period = text.strip().partition("/")
    amount = amount_of(text, currency)
    if amount.amount < 0:
        raise ValueError(f"{text!r} is negative; a budget is not.")
    allowed = get_args(Period)
    if slash and period not in allowed:
        raise ValueError(f"{period!r} is no period; write /day, /week or /month, or nothing for a budget that is once.")
    return amount, cast("Period", period) if slash else "once"


def since_of(text: str, now: float) -> int:
    """Unix seconds of `7d` (before `now`), a date (its midnight in UTC), a time (in UTC unless it names a zone), or of
    Unix seconds."""
    text = text.strip()
    if span := _span.fullmatch(text):
        seconds = int(span[1]) * SECONDS[span[2]]
        if seconds <= LONGEST:
            return max(0, int(now) - seconds)
    elif _unix.fullmatch(text):
        return int(text)
    else:
        try:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return max(0, int(moment.timestamp()))
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"{text!r} is no time; write 24h, 7d or 8w (up to 100 years), 2026-11-01 or 2026-11-01T12:00.")


def zone_of(text: str) -> str:
    """A name of the time zone database."""
    if text not in available_timezones():
        raise ValueError(f"{text!r} is no time zone; write UTC, Asia/Shanghai or Europe/Berlin, say.")
    return ZoneInfo(text).key
