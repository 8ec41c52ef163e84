"""The rules of routing: order, health, cool-down, waits. Time and chance are numbers here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chatport.policy.routing import (
    COOL_AFTER,
    COOL_FIRST,
    COOL_MOST,
    HEALTHY,
    SLEEP_BUDGET,
    Health,
    Routing,
    after_failure,
    wait_before,
)
from chatport.targets import Target
from chatport.wire.errors import ApiError, InternalError, InvalidRequest, RateLimited, Unavailable, UpstreamFailed

DOWN = Unavailable("down")


def target(name: str, **more: object) -> Target:
    return Target(**{"id": name, "backend": name, "model": "m", **more})  # type: ignore[arg-type]


@contextmanager
def occupied(routing: Routing, one: Target) -> Iterator[None]:
    """A request is at the target as long as it lasts."""
    standing = routing.standing(one)
    probes = standing.enter()
    yield
    standing.leave(probes)


def names(targets: list[Target]) -> str:
    return "".join(one.id for one in targets)


def failing(error: ApiError, times: int, now: float = 100.0) -> Health:
    health = HEALTHY
    for _ in range(times):
        health = after_failure(health, error, now)
    return health


def test_a_few_failures_cool_nothing_and_more_do_ever_longer() -> None:
    assert failing(DOWN, COOL_AFTER - 1).cools_until == 0
    assert failing(DOWN, COOL_AFTER).cools_until == 100 + COOL_FIRST
    assert failing(DOWN, COOL_AFTER + 1).cools_until == 100 + 2 * COOL_FIRST
    assert failing(DOWN, 1000).cools_until == 100 + COOL_MOST


def test_a_target_that_is_badly_configured_cools_at_once() -> None:
    assert failing(InternalError("no key"), 1).cools_until == 100 + COOL_FIRST
    assert failing(UpstreamFailed(), 1).cools_until == 0


@pytest.mark.parametrize(("asked", "cool"), [(None, COOL_FIRST), (7.0, 7.0), (3600.0, COOL_MOST)])
def test_a_target_that_asks_for_time_gets_it(asked: float | None, cool: float) -> None:
    assert failing(RateLimited("later", retry_after=asked), 1).cools_until == 100 + cool


def test_a_clients_error_says_nothing_of_the_target() -> None:
    assert failing(InvalidRequest("no"), 100) == HEALTHY


def test_priority_then_load_for_the_weight() -> None:
    routing = Routing(draw=lambda: 0.5)
    a, b, c = target("a", weight=2), target("b"), target("c", priority=1)
    assert names(routing.order((c, b, a), 0)) == "abc"
    with occupied(routing, a):
        assert names(routing.order((a, b, c), 0)) == "bac"
        with occupied(routing, b):
            assert names(routing.order((a, b, c), 0)) == "abc"
    assert routing.standing(a).in_flight == 0


def test_the_idle_share_by_weight() -> None:
    routing = Routing()
    targets = (target("a", weight=3), target("b"))
    first = Counter(routing.order(targets, 0)[0].id for _ in range(4000))
    assert 2 < first["a"] / first["b"] < 4.5


def test_who_cools_goes_behind_its_peers_and_further_and_comes_back() -> None:
    routing = Routing(draw=lambda: 0.5)
    a, b = target("a"), target("b", priority=1)
    for _ in range(COOL_AFTER):
        routing.standing(a).failed(DOWN, 100)
    assert names(routing.order((a, b), 100)) == "ba"
    assert names(routing.order((a,), 100)) == "a", "the last one left is asked all the same"
    assert names(routing.order((a, b), 100 + COOL_FIRST)) == "ab", "half-open"
    with occupied(routing, a):
        assert names(routing.order((a, b), 100 + COOL_FIRST)) == "ba", "one request at a time finds out"
    assert names(routing.order((a, b), 100 + COOL_FIRST)) == "ab"
    routing.standing(a).succeeded()
    with occupied(routing, a):
        assert not routing.standing(a).stands_back(0)


def test_a_target_takes_as_many_as_it_may() -> None:
    routing = Routing()
    a = target("a", max_concurrency=1)
    assert not routing.is_full(a)
    with occupied(routing, a):
        assert routing.is_full(a)
    assert not routing.is_full(target("b"))


def test_what_left_the_configuration_is_forgotten() -> None:
    routing = Routing()
    for name in "ab":
        routing.standing(target(name)).failed(DOWN, 0)
    routing.keep_only([target("b")])
    assert routing.standing(target("a")).health == HEALTHY
    assert routing.standing(target("b")).health.failures == 1


def test_waits_double_and_vary() -> None:
    assert [wait_before(DOWN, round_, 0, 0) for round_ in (1, 2, 3)] == [0.25, 0.5, 1.0]
    assert wait_before(DOWN, 1, 0, 1) == 0.125


def test_what_an_upstream_asks_for_is_waited_for_or_passed_on() -> None:
    assert wait_before(RateLimited("x", retry_after=1.5), 1, 0, 0) == 1.5
    assert wait_before(RateLimited("x", retry_after=SLEEP_BUDGET + 0.1), 1, 0, 0) is None
    assert wait_before(DOWN, 2, SLEEP_BUDGET - 0.3, 0) is None


@pytest.mark.parametrize("error", [InvalidRequest("x"), InternalError()])
def test_what_will_not_pass_is_not_tried_again(error: ApiError) -> None:
    assert wait_before(error, 1, 0, 0) is None
