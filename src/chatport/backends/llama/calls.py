"""How models write a call of a tool: one row a family.

A model that was trained to call tools writes calls in the form of its training, and its chat template shows that form.
So the row is chosen by what stands in the template; a model without any gets `ours`, and a section in its prompt that
explains it. What a row says is used three times: by the grammar that holds the model to it (`grammar.py`), by the
scanner that reads it (`scanner.py`), and where a template can't write calls itself (`conversation.py`).

    trigger opens {"name": "…", "arguments": {…}} between {…} closes
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

FormatName = Literal["chatport", "hermes", "llama3", "mistral"]


class CallFormat(Struct, frozen=True, kw_only=True):
    """One family's form."""

    name: FormatName
    told_by: tuple[str, ...]
    """Texts of which a template that uses this form holds one."""
    trigger: str
    """Begins calls wherever it stands in an answer; empty where nothing but the call itself does, and then only at the
    very beginning of an answer."""
    opens: str = ""
    between: str | None = None
    """Stands between two calls; None where each has a trigger of its own."""
    closes: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"

    @property
    def start(self) -> str:
        """What an answer's calls begin with."""
        return self.trigger or self.before_name

    @property
    def before_name(self) -> str:
        return f'{{"{self.name_key}": "'

    @property
    def before_arguments(self) -> str:
        return f'", "{self.arguments_key}": '

    def written(self, name: str, arguments: str) -> str:
        """One call, as a model of this family writes it."""
        call = f"{self.before_name}{name}{self.before_arguments}{arguments}}}"
        return f"{self.trigger}{self.opens}{call}{self.closes}"


OURS: Final = CallFormat(
    name="chatport", told_by=(), trigger="<tool_call>", opens="\n", closes="\n</tool_call>"
)  # Hermes' form, which most small models have seen

FORMATS: Final[dict[FormatName, CallFormat]] = {
    row.name: row
    for row in (
        CallFormat(
            name="hermes",  # and Qwen 2.5, Qwen 3, SmolLM 3, Granite 4
            told_by=("<tool_call>",),
            trigger="<tool_call>",
            opens="\n",
            closes="\n</tool_call>",
        ),
        CallFormat(
            name="mistral",
            told_by=("[TOOL_CALLS]",),
            trigger="[TOOL_CALLS]",
            opens="[",
            between=", ",
            closes="]",
        ),
        CallFormat(
            name="llama3",
            told_by=("<|python_tag|>", '"parameters": dictionary of argument name'),
            trigger="",
            between="; ",
            arguments_key="parameters",
        ),
        OURS,
    )
}
"""By name; the first that a template tells of is its own."""


def format_of(template: str, named: FormatName | None = None) -> CallFormat:
    """The form that a model writes calls in: the one that is named for it, else what its template tells."""
    if named is not None:
        return FORMATS[named]
    return next((row for row in FORMATS.values() if any(text in template for text in row.told_by)), OURS)


CUSTOM_TRIGGER: Final = '<custom_tool_call name="'
"""Begins the call of a custom tool, whose input is no JSON; one form for all families, none was trained for it."""
CUSTOM_OPENS: Final = '">\n'
CUSTOM_CLOSES: Final = "\n</custom_tool_call>"


def custom_call(name: str, text: str) -> str:
    """One call of a custom tool, as the model is told to write it."""
    return f"{CUSTOM_TRIGGER}{name}{CUSTOM_OPENS}{text}{CUSTOM_CLOSES}"
