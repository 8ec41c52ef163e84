"""A text in pieces, cut anywhere."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st


def split(text: str, data: st.DataObject) -> list[str]:
    """The pieces; joined they are the text."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=20)) | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(cuts)]
