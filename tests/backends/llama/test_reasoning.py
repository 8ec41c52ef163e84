"""Models that think, and the effort that reaches them."""

from __future__ import annotations

import pytest

from chatport.backends.llama.reasoning import MARKS, switched, thinking_of
from chatport.wire.chat import ReasoningEffort


def test_a_template_shows_how_its_model_thinks() -> None:
    assert thinking_of("{{ '<think>\n\n</think>' }}") == MARKS[0]
    assert thinking_of("{% if x %}[THINK]…[/THINK]{% endif %}") == MARKS[1]
    assert thinking_of("{{ messages }}") is None


@pytest.mark.parametrize(
    ("effort", "thinks", "steps"),
    [
        ("none", False, "low"),
        ("minimal", False, "low"),
        ("low", True, "low"),
        ("medium", True, "medium"),
        ("high", True, "high"),
        ("xhigh", True, "high"),
        ("max", True, "high"),
    ],
)
def test_efforts(effort: ReasoningEffort, thinks: bool, steps: str) -> None:
    assert switched(effort, {"enable_thinking", "messages"}) == {"enable_thinking": thinks}
    assert switched(effort, {"reasoning_effort"}) == {"reasoning_effort": steps}


def test_nothing_is_switched_unasked_or_where_there_is_no_switch() -> None:
    assert switched(None, {"enable_thinking"}) == {}
    assert switched("high", {"messages"}) == {}
