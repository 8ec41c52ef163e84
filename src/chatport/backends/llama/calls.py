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

TRIED_NAME: Final = "trial_tool"
TRIED_ARGUMENTS: Final = '{"trial_key": "trial value"}'
"""The call that a template is tried with (`template.py`): words that stand nowhere else."""


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

    def is_told_by(self, template: str, named: FormatName | None) -> bool:
        """Whether the family was named; where none was, whether the template tells of it. Ours always may be."""
        if named is not None:
            return self.name == named
        return not self.told_by or any(text in template for text in self.told_by)

    def stands_in(self, text: str) -> bool:
        """Whether the call that templates are tried with does, in this form."""
        return f"{self.trigger}{self.opens}{self._call(TRIED_NAME, TRIED_ARGUMENTS)}".removesuffix("}") in text

    def written(self, name: str, arguments: str) -> str:
        """One call, as a model of this family writes it."""
        return f"{self.trigger}{self.opens}{self._call(name, arguments)}{self.closes}"

    def _call(self, name: str, arguments: str) -> str:
        return f"{self.before_name}{name}{self.before_arguments}{arguments}}}"


OURS: Final = CallFormat(name="chatport", told_by=(), trigger="<tool_call>", opens="\n", closes="\n</tool_call>")
"""Hermes' form, which most small models have seen."""

FORMATS: Final = (
    # Hermes, Qwen 2.5 and 3, SmolLM 3, Granite 4
    CallFormat(name="hermes", told_by=("<tool_call>",), trigger="<tool_call>", opens="\n", closes="\n</tool_call>"),
    # EXAONE 4
    CallFormat(name="hermes", told_by=("<tool_call>",), trigger="<tool_call>", closes="</tool_call>"),
    # Mistral since Nemo, and before it
    CallFormat(name="mistral", told_by=("[TOOL_CALLS]",), trigger="[TOOL_CALLS]", opens="[", between=", ", closes="]"),
    CallFormat(name="mistral", told_by=("[TOOL_CALLS]",), trigger="[TOOL_CALLS]", opens=" [", between=", ", closes="]"),
    # Llama 3.1 and later
    CallFormat(
        name="llama3",
        told_by=("<|python_tag|>", '"parameters": dictionary of argument name'),
        trigger="",
        between="; ",
        arguments_key="parameters",
    ),
    OURS,
)
"""The rows; of those that a template tells of, its own is the one that it writes."""


def format_of(template: str, written: str, named: FormatName | None = None) -> CallFormat:
    """The form that a model writes calls in: the family that is named for it, else the one its template tells of.

    written: what the template made of the call it was tried with, empty where it can't write any.
    """
    rows = [row for row in FORMATS if row.is_told_by(template, named)]
    return next((row for row in rows if row.stands_in(written)), rows[0])


CUSTOM_TRIGGER: Final = '<custom_tool_call name="'
"""Begins the call of a custom tool, whose input is no JSON; one form for all families, none was trained for it."""
CUSTOM_OPENS: Final = '">\n'
CUSTOM_CLOSES: Final = "\n</custom_tool_call>"


def custom_call(name: str, text: str) -> str:
    """One call of a custom tool, as the model is told to write it."""
    return f"{CUSTOM_TRIGGER}{name}{CUSTOM_OPENS}{text}{CUSTOM_CLOSES}"
