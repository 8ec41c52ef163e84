"""What whole output was promised, checked when it is complete.

The engine held it to a grammar all the way; this is the second look, by another library, that makes a broken promise a
500 and never a wrong 200. Patterns are left to the grammar: a client's regular expression is never run by Python, which
some of them would keep busy for days. `multipleOf` is reckoned in decimals, since floats say that 0.29 is no multiple
of 0.01.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct


class Strict(Struct, frozen=True):
    """JSON that was promised to fit a schema."""

    schema: bytes

    def fault(self, value: Any) -> str | None:
        """Why the value does not fit; None when it does."""
        try:
            error = next(iter(_validator()(msgspec.json.decode(self.schema)).iter_errors(value)), None)
        except RecursionError:
            return None  # deeper than Python can look; the grammar could
        return None if error is None else str(error.message)


def json_fault(text: str, strict: Strict | None) -> str | None:
    """Why the text is not JSON, or not what was promised; None when it is."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        return f"not JSON: {exc}"
    except RecursionError:
        return None
    return strict.fault(value) if strict is not None else None


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415  60 ms, where something strict is asked for

    return validators.extend(Draft202012Validator, {"pattern": _held_by_the_grammar, "multipleOf": _multiple_of})


def _held_by_the_grammar(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    yield from ()


def _multiple_of(validator: Any, step: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError  # noqa: PLC0415  as above

    if validator.is_type(instance, "number") and Decimal(str(instance)) % Decimal(str(step)):
        yield ValidationError(f"{instance!r} is not a multiple of {step!r}")
