"""Amounts, times and zones as people write them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.policy.quantities import (
    MOST,
    NANO,
    SECONDS,
    Amount,
    Currency,
    amount_of,
    budget_of,
    since_of,
    zone_of,
)

CNY = Currency.of("CNY", 7.2)
NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5usd", Amount("nano", 5 * NANO)),
        ("0.25 USD", Amount("nano", NANO // 4)),
        (".5usd", Amount("nano", NANO // 2)),
        ("0.000000001usd", Amount("nano", 1)),
        ("-3usd", Amount("nano", -3 * NANO)),
        ("100000tok", Amount("token", 100_000)),
        ("1_000_000 tokens", Amount("token", 1_000_000)),
    ],
)
def test_amounts(text: str, amount: Amount) -> None:
    assert amount_of(text) == amount


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("5", "no amount; write 5usd"),
        ("usd", "no amount"),
        ("5eur", "'eur' is no unit; write 5usd, 0.25usd or 100000tok."),
        ("0usd", "not between 1"),
        ("0.0000000001usd", "finer than a billionth"),
        ("1.5tok", "finer than a whole token"),
        ("10000000000usd", "not between"),
        ("5usd5", "no amount"),
        ("--5usd", "no amount"),
        ("1e9usd", "no amount"),
        ("٥usd", "no amount"),
    ],
)
def test_what_is_no_amount(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        amount_of(text)


@given(st.integers(1, MOST))
def test_what_is_shown_can_be_read_again(nano: int) -> None:
    assert amount_of(Amount("nano", nano).shown()) == Amount("nano", nano)
    assert amount_of(Amount("token", nano).shown()) == Amount("token", nano)
    assert amount_of(Amount("nano", -nano).shown()) == Amount("nano", -nano)


@given(st.integers(10**9, 10**15))
def test_another_currency_is_right_to_a_billionth_of_it(nano: int) -> None:
    assert abs(amount_of(CNY.shown(nano), CNY).amount - nano) <= 1
    assert abs(Decimal(CNY.shown(nano).split()[0]) - Decimal(nano) * Decimal("7.2") / NANO) <= Decimal("1e-9")


@given(st.text(max_size=20))
def test_any_text_is_an_amount_or_refused_with_a_sentence(text: str) -> None:
    for reader in (amount_of, budget_of, lambda said: since_of(said, NOW), zone_of):
        try:
            reader(text)
        except ValueError as error:
            assert str(error).endswith(".")  # noqa: PT017  most texts are refused, not all


def test_a_configured_currency_may_be_written() -> None:
    assert amount_of("7.2cny", CNY) == Amount("nano", NANO)
    with pytest.raises(ValueError, match="or 5cny"):
        amount_of("5eur", CNY)


@pytest.mark.parametrize(
    ("text", "period"), [("5usd", "once"), ("5usd/once", "once"), ("5usd/month", "month"), ("9tok/day", "day")]
)
def test_budgets(text: str, period: str) -> None:
    assert budget_of(text)[1] == period


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("5usd/year", "'year' is no period; write /day"), ("5usd/", "no period"), ("-5usd/day", "negative")],
)
def test_what_is_no_budget(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        budget_of(text)


@given(st.integers(1, 1000), st.sampled_from(list(SECONDS)))
def test_spans_go_back_from_now(number: int, word: str) -> None:
    assert since_of(f"{number}{word}", NOW) == int(NOW) - number * SECONDS[word]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-02T01:00", 90_000),
        ("1970-01-02T01:00+01:00", 86_400),
        ("1970-01-02T01:00Z", 90_000),
        ("1795000000", 1_795_000_000),
        ("0001-01-01", 0),
    ],
)
def test_dates_and_times(text: str, seconds: int) -> None:
    assert since_of(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "7", "0d", "7 days", "99999w", "2026-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write 24h"):
        since_of(text, NOW)


@pytest.mark.parametrize("text", ["Mars/Base", "", "../etc/passwd", "utc "])
def test_what_is_no_zone(text: str) -> None:
    assert zone_of("Asia/Shanghai") == "Asia/Shanghai"
    with pytest.raises(ValueError, match="no time zone"):
        zone_of(text)
