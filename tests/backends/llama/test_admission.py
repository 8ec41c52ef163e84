"""Who generates, and who waits."""

from __future__ import annotations

import random

import pytest

from chatport.backends.llama.admission import Admission, Entry
from chatport.wire.errors import Unavailable


class Desk:
    """An admission, and a list of who was given a lane, in order."""

    def __init__(self, lanes: int = 4, cells: int = 100, queue: int = 64) -> None:
        self.admission = Admission(lanes=lanes, cells=cells, queue=queue)
        self.begun: list[str] = []

    def enter(self, name: str, cells: int = 1, choices: int = 1, width: int | None = None) -> Entry:
        entry = Entry(lambda: self.begun.append(name), cells=cells, choices=choices, width=width)
        self.admission.enter(entry)
        return entry

    def release(self, entry: Entry, seconds: float = 1.0) -> None:
        self.admission.release(entry, seconds)


def test_lanes_are_given_in_the_order_of_arrival() -> None:
    desk = Desk(lanes=2)
    entries = {name: desk.enter(name) for name in "abcdef"}
    assert desk.begun == ["a", "b"]
    for name in "baced":
        desk.release(entries[name])
    assert desk.begun == list("abcdef")


def test_what_needs_more_room_is_not_overtaken_by_what_needs_less() -> None:
    desk = Desk(lanes=4, cells=100)
    first = desk.enter("first", cells=60)
    desk.enter("whole window", cells=100)
    desk.enter("small", cells=1)
    assert desk.begun == ["first"]
    desk.release(first)
    assert desk.begun == ["first", "whole window"]


def test_cells_are_given_back() -> None:
    desk = Desk(cells=10)
    for turn in range(5):
        entry = desk.enter(str(turn), cells=10)
        assert desk.admission.free_cells == 0
        desk.release(entry)
    assert (desk.admission.free_lanes, desk.admission.free_cells) == (4, 10)


def test_the_queue_is_bounded_and_says_when_to_come_again() -> None:
    desk = Desk(lanes=1, queue=2)
    running = desk.enter("running")
    waiting = [desk.enter("waiting") for _ in range(2)]
    with pytest.raises(Unavailable) as refusal:
        desk.enter("refused")
    assert refusal.value.retry_after is not None
    assert 1 <= refusal.value.retry_after <= 60
    assert desk.admission.waiting == 2
    desk.admission.withdraw(waiting[0])
    desk.enter("again")
    desk.release(running)
    assert desk.begun == ["running", "waiting"]


def test_a_queue_of_none_still_lets_in_what_fits() -> None:
    desk = Desk(lanes=1, queue=0)
    desk.enter("a")
    with pytest.raises(Unavailable):
        desk.enter("b")


def test_the_expected_wait_follows_what_choices_take() -> None:
    quick, slow = Desk(lanes=1, queue=0), Desk(lanes=1, queue=0)
    for desk, seconds in ((quick, 1.0), (slow, 50.0)):
        for _ in range(50):
            desk.release(desk.enter("a"), seconds)
        desk.enter("a")
    waits = []
    for desk in (quick, slow):
        with pytest.raises(Unavailable) as refusal:
            desk.enter("b")
        waits.append(refusal.value.retry_after or 0)
    assert waits[0] < 5 < 40 < waits[1] <= 60


def test_several_choices_take_all_lanes_while_nobody_waits() -> None:
    desk = Desk(lanes=4)
    entry = desk.enter("n", choices=6)
    assert desk.begun == ["n"] * 4
    desk.release(entry)
    assert desk.begun == ["n"] * 5


def test_several_choices_leave_one_lane_to_those_who_wait() -> None:
    desk = Desk(lanes=4)
    many = desk.enter("n", choices=128)
    desk.enter("waiting")
    desk.release(many)
    assert desk.begun[-1] == "waiting"
    assert many.lanes == 3
    desk.release(many)
    assert desk.begun[-1] == "n", "what is in stays in"
    assert many.lanes == 3


def test_with_one_lane_several_choices_are_not_interrupted() -> None:
    desk = Desk(lanes=1)
    many = desk.enter("n", choices=3)
    desk.enter("waiting")
    for _ in range(3):
        desk.release(many)
    assert desk.begun == ["n", "n", "n", "waiting"]


def test_a_width_is_kept() -> None:
    desk = Desk(lanes=4)
    entry = desk.enter("n", choices=3, width=1)
    assert entry.lanes == 1
    desk.release(entry)
    assert (entry.lanes, desk.begun) == (1, ["n", "n"])


def test_who_withdraws_gets_nothing_more_and_makes_way() -> None:
    desk = Desk(lanes=1)
    running = desk.enter("running", choices=5)
    gone = desk.enter("gone")
    desk.enter("next")
    desk.admission.withdraw(gone)
    desk.admission.withdraw(running)
    assert desk.begun == ["running"], "what runs holds its lane until it has ended"
    desk.release(running)
    assert desk.begun == ["running", "next"]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_nobody_starves(seed: int) -> None:
    dice = random.Random(seed)
    desk = Desk(lanes=4, cells=100, queue=1000)
    running: list[Entry] = []
    entries = [desk.enter(str(n), cells=dice.randint(1, 100), choices=dice.randint(1, 5)) for n in range(40)]
    assert entries[0].lanes > 0
    while any(entry.lanes for entry in entries):
        assert 0 <= desk.admission.free_cells <= 100
        assert 0 <= desk.admission.free_lanes <= 4
        running = [entry for entry in entries if entry.lanes]
        desk.release(dice.choice(running))
    assert not any(entry.wanted for entry in entries)
    first_begun = [desk.begun.index(str(n)) for n in range(40)]
    assert first_begun == sorted(first_begun), "first come, first served"
    assert (desk.admission.free_lanes, desk.admission.free_cells) == (4, 100)
