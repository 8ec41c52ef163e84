"""How a long prompt is read, without a model."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.engine import BATCH
from chatport.backends.llama.generation import DEEP, DEEPER, deep_ends


def test_a_short_prompt_is_read_as_it_is() -> None:
    assert list(deep_ends(0, DEEP)) == []


@given(length=st.integers(1, 12_000), batches=st.integers(0, 150))
def test_the_deeper_the_smaller_and_cut_at_the_same_places_with_a_warm_cache(length: int, batches: int) -> None:
    cold = list(deep_ends(0, length))
    for start, end in pairwise([DEEP, *cold] if cold else []):
        assert end - start == (BATCH // 2 if start < DEEPER else BATCH // 4)
    known = min(batches, length // BATCH) * BATCH
    assert list(deep_ends(known, length)) == [end for end in cold if end > known]
