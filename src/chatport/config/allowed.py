"""Types in words: what a setting may be, for the sentences of errors and for `docs/configuration.md`."""

from __future__ import annotations

import json
from typing import Any

from msgspec import inspect


def allowed(kind: inspect.Type) -> str:
    """`a whole number from 1 to 256`. What a Meta says in its own words (`extra["allowed"]`) wins."""
    match kind:
        case inspect.Metadata(type=inner, extra=extra):
            return (extra or {}).get("allowed") or allowed(inner)
        case inspect.UnionType(types=types):
            return " or ".join(allowed(one) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.VarTupleType(item_type=item):
            return "a list of strings" + ("" if isinstance(item, inspect.StrType) else f", each {allowed(item)}")
        case inspect.LiteralType(values=values):
            return " or ".join(json.dumps(value) for value in values)
        case inspect.StrType(min_length=length):
            return "text that is not empty" if length else "text"
        case _:
            return _number(kind)


def is_secret(kind: inspect.Type) -> bool:
    """Whether a message must not repeat the value."""
    match kind:
        case inspect.Metadata(type=inner, extra=extra):
            return bool((extra or {}).get("secret")) or is_secret(inner)
        case inspect.UnionType(types=types):
            return any(is_secret(one) for one in types)
        case inspect.VarTupleType(item_type=item):
            return is_secret(item)
        case _:
            return False


def _number(kind: inspect.Type) -> str:
    match kind:
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(gt=None, ge=least, le=most):
            return f"a number from {_plain(least)} to {_plain(most)}"
        case inspect.FloatType(gt=above, le=most):
            return f"a number above {_plain(above)}, up to {_plain(most)}"
    raise TypeError(f"no words for {kind}")


def _plain(bound: Any) -> str:
    return f"{bound:.15g}"
