"""Which of the engine's slots reads which prompt, and what of the cache may be used for it.

Two rules, for two kinds of request:

* A request that rolls dice goes where most of its prompt is cached already, and uses all of that.
* An exact request (temperature 0, or a seed) must get the same answer with a cold and with a warm cache. Arithmetic on
  floats depends on the order of the sums, and that on how the prompt was cut into batches and on where its cells lie; a
  difference in the last bit can tip the balance between two words. So an exact request that has the engine to itself
  is computed in one canonical way: in slot 0, from an otherwise empty cache, in whole batches counted from the
  prompt's beginning. Cached batches are used only where they were computed in just that way, and only whole ones: the
  rest of the prompt is then cut where it would have been cut anyway. What is left to evaluate is bit for bit what
  would have been evaluated without a cache.

  Beside other running requests that can't be had, with whatever cache: every step of the engine computes all of them
  together, and a tie between two words may fall the other way. Then an exact request is placed like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

Tokens = Sequence[int]

CANONICAL: Final = 0
"""The slot of exact requests that are alone."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a prompt is read, and what is to be done there first."""

    slot: int
    erase: bool = False
    """Empty every slot before."""
    reuse: bool
    """Whether what is cached in the slot may be used."""
    keep: int = 0
    """Where not 0: of what is cached, exactly so many tokens may be used."""
    known: int = 0
    """Tokens of the prompt that are in the cache already, as far as they may be used; roughly."""


class Slots:
    """The engine's slots, `count` of them; `batch`: the tokens of a prompt that it evaluates at once."""

    def __init__(self, count: int, batch: int) -> None:
        self._batch = batch
        self._cached: list[Tokens] = [()] * count
        self._free = list(range(count))  # the one that has rested longest first
        self._pure = True
        self._canonical: Tokens = ()

    @property
    def busy(self) -> int:
        return len(self._cached) - len(self._free)

    def take(self, prompt: Tokens, *, exact: bool) -> Place:
        """A free slot for this prompt; there must be one (see `admission.py`)."""
        if exact and not self.busy:
            place = self._take_canonical(prompt)
        else:
            self._pure = False
            slot = max(self._free, key=lambda slot: self._gain(slot, prompt))
            place = Place(slot=slot, reuse=True, known=common_prefix(self._cached[slot], prompt))
        self._free.remove(place.slot)
        self._cached[place.slot] = prompt
        return place

    def give_back(self, place: Place, *, read: bool) -> None:
        """The slot is free again. read: whether the prompt was evaluated to its end."""
        prompt = self._cached[place.slot]
        self._free.append(place.slot)
        if not read:
            self._pure = False
        elif self._pure:
            self._canonical = prompt[: self._whole_batches(len(prompt) - 1)]  # the last token may be read again

    def _gain(self, slot: int, prompt: Tokens) -> int:
        """Tokens that need not be evaluated, less those that another conversation would then lose."""
        cached = self._cached[slot]
        common = common_prefix(cached, prompt)
        return common - (len(cached) - common)

    def _take_canonical(self, prompt: Tokens) -> Place:
        erase = not self._pure
        self._pure = True
        known = () if erase else self._canonical
        self._canonical = ()
        # One token at least must be left to evaluate: its probabilities are what is wanted.
        keep = self._whole_batches(min(common_prefix(known, prompt), len(prompt) - 1))
        return Place(slot=CANONICAL, erase=erase, reuse=keep > 0, keep=keep, known=keep)

    def _whole_batches(self, tokens: int) -> int:
        return tokens // self._batch * self._batch


def common_prefix(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
