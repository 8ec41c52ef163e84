"""Limits of keys, owners, models and end users, by a simulated clock."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import floor
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from chatport.counters.memory import MemoryCounters
from chatport.policy.limits import Admission, Limits, Reported, Standing, Subjects, duration
from chatport.store import Store
from chatport.store.limits import Kind, Limit, LimitRow, Mode, Rules
from chatport.wire.errors import RateLimited

T = TypeVar("T")
DURATION = re.compile(r"\d+ms|(\d+h)?(\d+m)?\d+s")
WHO = Subjects("key_1", "alice", "gpt-4", "bob")
STRANGER = Subjects("key_2", "carol", "gpt-5", "bob")


def now_or_never(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that does not suspend: with counters of the process, none does."""
    with pytest.raises(StopIteration) as done:
        work.send(None)
    result: T = done.value.value
    return result


def limit(scope: str = "key:key_1", mode: Mode = "enforce", **rules: int) -> Limit:
    kind, _, subject = scope.partition(":")
    kinds: dict[str, Kind] = {"key": "key", "owner": "owner", "model": "model", "user": "user"}
    return Limit(kind=kinds[kind], subject=subject, rules=Rules(**rules), mode=mode)


class House:
    """Limits with counters of their own, asked at once."""

    def __init__(self, *limits: Limit) -> None:
        self.counters = MemoryCounters()
        self.limits = Limits(self.counters)
        self.limits.configure(limits)

    def admit(self, now: float = 0.0, who: Subjects = WHO) -> Admission:
        return now_or_never(self.limits.admit(who, now))

    def refused(self, now: float = 0.0, who: Subjects = WHO) -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            self.admit(now, who)
        return caught.value

    def used(self, now: float = 0.0, who: Subjects = WHO) -> dict[str, int]:
        return {f"{each.scope} {each.limit}": each.used for each in now_or_never(self.limits.standing(who, now))}


def charge(admission: Admission, tokens: int, now: float = 0.0) -> None:
    now_or_never(admission.charge(tokens, now))


def charge_refused(admission: Admission, tokens: int, now: float = 0.0) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        charge(admission, tokens, now)
    return caught.value


def test_a_refusal_names_the_limit_whose_it_is_how_much_is_used_and_when_to_try_again() -> None:
    house = House(limit(rpm=3))
    for _ in range(3):
        house.admit(0.0)
    refusal = house.refused(0.0)
    assert refusal.message == "Requests per minute of this API key: 3 of 3 used. Try again in 20.0 s."
    assert refusal.retry_after == 20.0
    assert refusal.headers == {
        "retry-after": "20",
        "retry-after-ms": "20000",
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }
    assert house.refused(19.9).retry_after == pytest.approx(0.1)
    house.admit(20.0)


@pytest.mark.parametrize(
    ("scope", "rules", "words"),
    [
        ("key:key_1", {"rph": 1}, "Requests per hour of this API key: 1 of 1 used. Try again in 1h0m0s."),
        ("owner:alice", {"rpd": 1}, 'Requests per day of the owner "alice": 1 of 1 used. Try again in 24h0m0s.'),
        ("model:gpt-4", {"rpm": 1}, 'Requests per minute of the model "gpt-4": 1 of 1 used. Try again in 1m0s.'),
        ("user:key_1", {"rpm": 1}, 'Requests per minute of the end user "bob": 1 of 1 used. Try again in 1m0s.'),
        (
            "key:key_1",
            {"concurrency": 1},
            "Requests at the same time of this API key: 1 of 1 used. Try again when one of them has ended.",
        ),
    ],
)
def test_every_kind_of_limit_and_of_subject(scope: str, rules: dict[str, int], words: str) -> None:
    house = House(structs.replace(limit(scope), rules=Rules(**rules)))
    house.admit(who=STRANGER)
    house.admit()
    assert house.refused().message == words
    house.admit(who=STRANGER)


@pytest.mark.parametrize(("name", "words"), [("tpm", "minute"), ("tph", "hour"), ("tpd", "day")])
def test_every_limit_of_tokens(name: str, words: str) -> None:
    house = House(structs.replace(limit(), rules=Rules(**{name: 100})))
    charge(house.admit(), 90)
    refusal = charge_refused(house.admit(), 20)
    assert refusal.message.startswith(
        f"Tokens per {words} of this API key: 90 of 100 used, and this request may need 20. Try again in "
    )
    wait = {"minute": 6, "hour": 360, "day": 8640}[words]
    assert refusal.retry_after == pytest.approx(wait)
    charge(house.admit(wait), 20, wait)


def test_a_request_that_can_never_pass_is_told_so_and_the_sdks_not_to_repeat_it() -> None:
    house = House(limit(tpm=100, rpm=5))
    refusal = charge_refused(house.admit(), 101)
    assert refusal.message == (
        "Tokens per minute of this API key: 100 at most, and this request may need 101. Waiting does not help: shorten "
        "the messages, or set a lower max_completion_tokens."
    )
    assert refusal.retry_after is None
    assert refusal.headers["x-should-retry"] == "false"
    assert "retry-after" not in refusal.headers
    assert house.used() == {"key:key_1 tpm": 0, "key:key_1 rpm": 0}


def test_the_end_users_of_a_key_have_a_limit_each() -> None:
    house = House(limit("user:*", rpm=1))
    long = structs.replace(WHO, end_user="b" * 100)
    for who in (WHO, STRANGER, structs.replace(WHO, end_user="eve"), long, structs.replace(WHO, end_user="b" * 101)):
        house.admit(who=who)
        house.refused(who=who)
    for nobody in (None, ""):
        house.admit(who=structs.replace(WHO, end_user=nobody))
        house.admit(who=structs.replace(WHO, end_user=nobody))


def test_a_star_is_for_each_one_that_has_none_of_its_own() -> None:
    house = House(limit("key:*", rpm=1), limit("key:key_1", rpm=2))
    house.admit()
    house.admit()
    house.refused()
    house.admit(who=STRANGER)
    house.refused(who=STRANGER)


def test_the_models_of_a_family_have_a_limit_each() -> None:
    house = House(limit("model:openai/*", rpm=1), limit("model:openai/big", rpm=2), limit("model:*", rpm=3))
    for model, admitted in {"openai/small": 1, "openai/a/b": 1, "openai/big": 2, "other": 3}.items():
        who = structs.replace(WHO, model=model)
        for _ in range(admitted):
            house.admit(who=who)
        house.refused(who=who)


def test_the_tighter_refuses_and_the_others_lose_nothing() -> None:
    house = House(limit(rpm=10, tpm=1000, concurrency=9), limit("owner:alice", rpm=2, tpm=50))
    charge(house.admit(), 40)
    house.admit()
    assert "owner" in house.refused().message
    before = house.used()
    assert before["key:key_1 rpm"] == 2
    house.refused()
    assert house.used() == before
    admission = house.admit(30.0)
    assert 'Tokens per minute of the owner "alice"' in charge_refused(admission, 50, 30.0).message
    assert house.used(30.0)["owner:alice rpm"] == 1
    now_or_never(admission.release())
    assert house.used(30.0)["key:key_1 concurrency"] == 2


def test_places_are_given_back_once() -> None:
    house = House(limit(concurrency=2))

    async def one() -> None:
        admission = await house.limits.admit(WHO, 0.0)
        assert house.used() == {"key:key_1 concurrency": 1}
        await admission.release()
        await admission.end(0, 0.0)
        assert house.used() == {"key:key_1 concurrency": 0}

    now_or_never(one())
    assert house.used() == {"key:key_1 concurrency": 0}
    house.admit(), house.admit()
    assert house.refused().headers["retry-after"] == "1"


def test_tokens_are_corrected_to_what_was_used() -> None:
    house = House(limit(tpm=100, tph=1000))
    admission = house.admit()
    charge(admission, 80)
    now_or_never(admission.correct(15, 0.0))
    assert house.used() == {"key:key_1 tpm": 15, "key:key_1 tph": 15}
    now_or_never(admission.correct(15, 0.0))
    assert house.used() == {"key:key_1 tpm": 15, "key:key_1 tph": 15}
    over = house.admit()
    charge(over, 80)
    now_or_never(over.correct(200, 0.0))
    assert house.used() == {"key:key_1 tpm": 215, "key:key_1 tph": 215}
    assert charge_refused(house.admit(), 1).retry_after == pytest.approx(116 * 60 / 100)


def test_the_next_target_is_charged_in_place_of_the_one_before() -> None:
    house = House(limit(tpm=100))
    admission = house.admit()
    charge(admission, 60)
    charge(admission, 90)
    assert house.used() == {"key:key_1 tpm": 90}
    charge(admission, 40)
    assert house.used() == {"key:key_1 tpm": 40}


def test_a_limit_that_reports_refuses_nobody_and_says_nothing_to_clients(caplog: pytest.LogCaptureFixture) -> None:
    house = House(limit(mode="report", rpm=2, tpm=100, concurrency=2))
    with caplog.at_level(logging.WARNING, "chatport"):
        for _ in range(4):
            admission = house.admit()
            charge(admission, 60)
            assert admission.headers(0.0) == {}
            now_or_never(admission.correct(50, 0.0))
    assert house.limits.reported() == [
        Reported(scope="key:key_1", limit="concurrency", count=2),
        Reported(scope="key:key_1", limit="rpm", count=2),
        Reported(scope="key:key_1", limit="tpm", count=3),
    ]
    # What would have been refused would not have been charged.
    assert house.used() == {"key:key_1 rpm": 2, "key:key_1 tpm": 50, "key:key_1 concurrency": 2}
    assert [record.message for record in caplog.records] == [
        "the limit tpm of key:key_1 would have refused a request of key key_1: 1 so far",
        "the limit rpm of key:key_1 would have refused a request of key key_1: 1 so far",
        "the limit concurrency of key:key_1 would have refused a request of key key_1: 1 so far",
    ]
    caplog.clear()
    for _ in range(5):
        house.admit(61.0)
    assert [record.message.split()[2] for record in caplog.records] == ["concurrency", "rpm"]


def test_places_that_were_not_taken_are_not_given_back() -> None:
    house = House(limit(mode="report", concurrency=1))
    first, second = house.admit(), house.admit()
    now_or_never(second.release())
    assert house.used() == {"key:key_1 concurrency": 1}
    now_or_never(first.release())
    assert house.used() == {"key:key_1 concurrency": 0}


def test_a_limit_that_reports_leaves_the_headers_to_those_that_refuse() -> None:
    house = House(limit(mode="report", rpm=1), limit("model:gpt-4", rpm=10))
    assert house.admit().headers(0.0)["x-ratelimit-limit-requests"] == "10"


def test_the_headers_tell_the_limits_with_the_smallest_share_left() -> None:
    house = House(limit(rpm=10, rpd=4, tpm=1000, tpd=100_000))
    admission = house.admit(100.0)
    charge(admission, 250, 100.0)
    assert admission.headers(100.0) == {
        "x-ratelimit-limit-requests": "4",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "6h0m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "750",
        "x-ratelimit-reset-tokens": "15s",
    }
    now_or_never(admission.correct(10, 100.0))
    assert admission.headers(100.5) == admission.headers(100.0) | {
        "x-ratelimit-remaining-tokens": "990",
        "x-ratelimit-reset-requests": "6h0m0s",
        "x-ratelimit-reset-tokens": "100ms",
    }


def test_only_what_is_limited_is_told() -> None:
    house = House(limit(tpm=1000))
    assert house.admit().headers(0.0).keys() == {
        f"x-ratelimit-{word}-tokens" for word in ("limit", "remaining", "reset")
    }
    assert House(limit(concurrency=2)).admit().headers(0.0) == {}


def test_nothing_configured_costs_and_says_nothing() -> None:
    house = House()
    admission = house.admit()
    assert house.admit(who=STRANGER) is admission
    charge(admission, 1 << 40)
    now_or_never(admission.correct(1, 0.0))
    now_or_never(admission.release())
    assert admission.headers(0.0) == {}
    assert len(house.counters) == 0
    assert House(limit("key:other", rpm=1)).admit().headers(0.0) == {}


def test_what_is_used_outlives_a_changed_configuration() -> None:
    house = House(limit(rpm=2))
    house.admit()
    house.limits.configure([limit(rpm=3)])
    house.admit()
    house.admit()
    house.refused()
    house.limits.configure([])
    house.admit()


def test_a_look_costs_nothing() -> None:
    house = House(limit(rpm=2, tpm=10, concurrency=1))
    house.admit()
    seen = now_or_never(house.limits.look(WHO, 0.0))
    assert seen.headers(0.0)["x-ratelimit-remaining-requests"] == "1"
    now_or_never(seen.correct(5, 0.0))
    now_or_never(seen.release())
    assert house.used() == {"key:key_1 rpm": 1, "key:key_1 tpm": 0, "key:key_1 concurrency": 1}
    assert now_or_never(House().limits.look(WHO, 0.0)).headers(0.0) == {}


def test_how_a_caller_stands() -> None:
    house = House(limit(rpm=60), limit("model:gpt-4", "report", concurrency=2))
    house.admit()
    assert now_or_never(house.limits.standing(WHO, 0.5)) == [
        Standing(scope="key:key_1", limit="rpm", mode="enforce", amount=60, used=1, reset_seconds=0.5),
        Standing(scope="model:gpt-4", limit="concurrency", mode="report", amount=2, used=1, reset_seconds=None),
    ]


async def test_those_of_the_file_and_of_the_database_both_hold(store: Store) -> None:
    limits = Limits(MemoryCounters(), store.limits)
    limits.configure([limit(rpm=2), limit("key:*", rpm=1)])
    await store.limits.set(LimitRow(kind="key", subject="key_1", rules=Rules(rph=1), changed_at=1), "me")
    await limits.load()
    await limits.admit(WHO, 0.0)
    with pytest.raises(RateLimited, match="Requests per hour of this API key: 1 of 1 used"):
        await limits.admit(WHO, 0.0)
    await store.limits.remove("key", "key_1", "me")
    await limits.load()
    await limits.admit(WHO, 0.0)
    with pytest.raises(RateLimited, match="Requests per minute of this API key: 2 of 2 used"):
        await limits.admit(WHO, 0.0)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0s"),
        (-1.0, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9999, "1s"),
        (1.0, "1s"),
        (1.2, "2s"),
        (59.5, "1m0s"),
        (360.0, "6m0s"),
        (3600.0, "1h0m0s"),
        (3723.0, "1h2m3s"),
        (86_400.0, "24h0m0s"),
    ],
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told
    assert DURATION.fullmatch(told)


STEPS = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 120), st.integers(0, 200)), max_size=40)


@given(st.integers(1, 9), st.integers(1, 3), st.floats(1, 10_000))
def test_under_saturation_what_the_limits_say_is_admitted(per_minute: int, hours_worth: int, span: float) -> None:
    """A client that asks again whenever it is told to: as many are admitted as burst + rate x time, of both rules."""
    rules = {"rpm": (per_minute, 60.0), "rph": (per_minute * 10 * hours_worth, 3600.0)}
    house = House(limit(rpm=rules["rpm"][0], rph=rules["rph"][0]))
    now, admitted = 0.0, 0
    while now <= span:
        wait = wait_of(house, now)
        if wait == 0:
            admitted += 1
            continue
        exact = min(amount + amount / period * now for amount, period in rules.values())
        assert admitted == floor(exact + 1e-5)
        now += wait


def wait_of(house: House, now: float) -> float:
    """How long one more request is asked to wait; 0.0: it was admitted."""
    try:
        house.admit(now)
    except RateLimited as refusal:
        return refusal.retry_after or 0.0
    return 0.0


@given(STEPS)
def test_the_headers_keep_their_word(steps: list[tuple[float, int, int]]) -> None:
    """Never above the limit, never below nothing; of two requests at one moment the later is told of less."""
    house = House(limit(rpm=7, rph=40, tpm=300))
    now = 0.0
    for pause, bound, used in steps:
        now += pause
        before = house.used(now)["key:key_1 rpm"]
        admission, told = told_at_admission(house, now)
        if admission is not None:
            told = told_after_charge(admission, bound, now)
            after = next_left(house, now)
            assert after is None or after < int(told["x-ratelimit-remaining-requests"]) or bound > 300
            now_or_never(admission.correct(used, now))
        else:
            assert house.used(now)["key:key_1 rpm"] == before
        for unit in ("requests", "tokens"):
            left, most = int(told[f"x-ratelimit-remaining-{unit}"]), int(told[f"x-ratelimit-limit-{unit}"])
            assert 0 <= left <= most
            assert DURATION.fullmatch(told[f"x-ratelimit-reset-{unit}"])


def told_at_admission(house: House, now: float) -> tuple[Admission | None, dict[str, str]]:
    try:
        return house.admit(now), {}
    except RateLimited as refusal:
        return None, refusal.headers


def told_after_charge(admission: Admission, tokens: int, now: float) -> dict[str, str]:
    with suppress(RateLimited):
        charge(admission, tokens, now)
    return admission.headers(now)


def next_left(house: House, now: float) -> int | None:
    """What one more request would be told, if it were admitted by the same rule."""
    try:
        admission = house.admit(now)
        told = admission.headers(now)
    except RateLimited:
        return None
    return int(told["x-ratelimit-remaining-requests"]) if told["x-ratelimit-limit-requests"] == "7" else None


@given(st.lists(st.sampled_from(["admit", "release", "release again"]), max_size=60), st.integers(1, 4))
def test_there_are_never_more_places_in_use_than_there_are_and_never_fewer_than_none(
    steps: list[str], most: int
) -> None:
    house = House(limit(concurrency=most))
    running: list[Admission] = []
    ended: list[Admission] = []
    do: dict[str, Callable[[], None]] = {
        "admit": lambda: running.append(house.admit()),
        "release": lambda: ended.append(running.pop(0)) if running else None,
        "release again": lambda: None,
    }
    for step in steps:
        if step == "admit" and len(running) == most:
            house.refused()
        else:
            do[step]()
        for admission in ended:
            now_or_never(admission.release())
        assert house.used() == {"key:key_1 concurrency": len(running)}
