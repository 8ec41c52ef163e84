"""Which slot reads which prompt, and what of the cache it may use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.slots import Place, Slots, common_prefix

BATCH = 4
PROMPT = tuple(range(100, 111))  # two whole batches and three tokens


def run(slots: Slots, prompt: tuple[int, ...], *, exact: bool = True, read: bool = True) -> Place:
    place = slots.take(prompt, exact=exact)
    slots.give_back(place, read=read)
    return place


def test_an_exact_prompt_alone_is_read_in_the_first_slot_and_cold() -> None:
    assert run(Slots(4, BATCH), PROMPT) == Place(slot=0, reuse=False)


def test_again_it_uses_whole_batches_only() -> None:
    slots = Slots(4, BATCH)
    run(slots, PROMPT)
    assert run(slots, PROMPT) == Place(slot=0, reuse=True, keep=8, known=8)
    assert run(slots, (*PROMPT[:7], 1, 2, 3)) == Place(slot=0, reuse=True, keep=4, known=4)


def test_one_token_is_always_left_to_evaluate() -> None:
    slots = Slots(4, BATCH)
    run(slots, PROMPT[:8])
    assert run(slots, PROMPT[:8]).keep == 4
    assert run(slots, PROMPT[:9]).keep == 4, "the last batch may have been read again for its last token"


def test_a_prompt_that_was_not_read_to_its_end_is_not_used() -> None:
    slots = Slots(4, BATCH)
    run(slots, PROMPT, read=False)
    assert run(slots, PROMPT) == Place(slot=0, erase=True, reuse=False)


def test_after_other_requests_an_exact_one_starts_from_an_empty_cache() -> None:
    slots = Slots(4, BATCH)
    run(slots, PROMPT)
    run(slots, PROMPT, exact=False)
    assert run(slots, PROMPT) == Place(slot=0, erase=True, reuse=False)
    assert run(slots, PROMPT).keep == 8


def test_beside_others_an_exact_one_is_placed_like_any_other_and_leaves_no_canonical_cache() -> None:
    slots = Slots(4, BATCH)
    run(slots, PROMPT)
    other = slots.take((1, 2, 3), exact=False)
    beside = slots.take(PROMPT, exact=True)
    assert beside == Place(slot=0, reuse=True, known=len(PROMPT))
    assert beside.slot != other.slot
    slots.give_back(other, read=True)
    slots.give_back(beside, read=True)
    assert run(slots, PROMPT).erase


def test_what_comes_beside_an_exact_one_spoils_what_it_cached() -> None:
    slots = Slots(4, BATCH)
    alone = slots.take(PROMPT, exact=True)
    run(slots, PROMPT, exact=False)
    slots.give_back(alone, read=True)
    assert run(slots, PROMPT) == Place(slot=0, erase=True, reuse=False)


def test_a_conversation_goes_on_in_its_slot() -> None:
    slots = Slots(3, BATCH)
    first = run(slots, PROMPT, exact=False)
    other = run(slots, (7, 8, 9), exact=False)
    assert first.slot != other.slot
    assert run(slots, (*PROMPT, 1, 2), exact=False) == Place(slot=first.slot, reuse=True, known=len(PROMPT))
    assert run(slots, (7, 8, 9, 10), exact=False).slot == other.slot


def test_a_new_conversation_does_not_take_a_long_ones_slot_for_a_common_beginning() -> None:
    slots = Slots(2, BATCH)
    long = run(slots, PROMPT, exact=False)
    assert run(slots, (*PROMPT[:2], 1, 2, 3), exact=False).slot != long.slot


def test_slots_are_taken_once() -> None:
    slots = Slots(3, BATCH)
    places = [slots.take(PROMPT, exact=False) for _ in range(3)]
    assert sorted(place.slot for place in places) == [0, 1, 2]
    assert slots.busy == 3


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40))
def test_the_common_prefix_is_what_both_begin_with(one: list[int], other: list[int]) -> None:
    length = common_prefix(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or length == min(len(one), len(other))
