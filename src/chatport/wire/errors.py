"""One tree of errors; each class knows its place in the API (contract.md §12).

    ApiError                    what a client may be told: message, type, param, code
    ├── InvalidRequest          400 invalid_request_error; the code names the fault
    │   ├── Unsupported         400 unsupported_parameter | unsupported_value: this model can't, another may
    │   └── ContextExceeded     400 context_length_exceeded
    ├── BadJSON                 400 invalid_request_error, code null: the body is no JSON object
    ├── InvalidKey              401 invalid_api_key
    ├── QuotaExhausted          401 insufficient_quota
    ├── AccessDenied            403 access_denied
    ├── NotFound                404 not_found
    │   └── ModelNotFound       404 model_not_found
    ├── MethodNotAllowed        405 method_not_supported
    ├── BodyTooLarge            413 request_too_large
    ├── RateLimited             429 rate_limit_exceeded
    ├── InternalError           500 api_error: our fault, or an upstream that refuses us
    │   └── UpstreamFailed      500 api_error: an upstream's fault, or its broken answer
    └── Unavailable             503 service_unavailable: overloaded, starting, stopping, upstream unreachable

Raise them anywhere; only `web/` turns one into a reply, and only `wire/sse.py` into a frame of a stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar

import msgspec

QUOTE_LIMIT = 64
"""Characters of an offending value that a message may repeat (contract.md §12)."""


def quote(value: object) -> str:
    """The value as JSON, cut to `QUOTE_LIMIT` characters: what a message may repeat of a client's input."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError, OverflowError):
        text = ascii(value)
    return text if len(text) <= QUOTE_LIMIT else text[: QUOTE_LIMIT - 1] + "…"


class ErrorObject(msgspec.Struct, frozen=True):
    """The four keys that every error carries."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorObject


class ApiError(Exception):
    """Something the client is told. The message says what was wrong, what was given and what is allowed."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    default_code: ClassVar[str | None] = None
    transient: ClassVar[bool] = False
    """Whether the same request may succeed at the same place a moment later."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code

    @property
    def headers(self) -> dict[str, str]:
        """What the reply's head must say beside the body."""
        return {}

    def body(self) -> bytes:
        """The error object of contract.md §12, as JSON."""
        return msgspec.json.encode(ErrorBody(ErrorObject(self.message, self.type, self.param, self.code)))


class InvalidRequest(ApiError):
    """A field is missing, of the wrong type, out of range, or at odds with another one."""

    status, type = 400, "invalid_request_error"


class BadJSON(InvalidRequest):
    """The body is not one JSON object in UTF-8."""


class Unsupported(InvalidRequest):
    """Valid, but the model that would answer can't honour it."""

    default_code = "unsupported_parameter"


class ContextExceeded(InvalidRequest):
    """The prompt alone is longer than the model's window."""

    default_code = "context_length_exceeded"

    def __init__(self, context: int, prompt_tokens: int, *, at_least: bool = False) -> None:
        """at_least: the prompt was not counted to its end."""
        counted = f"at least {prompt_tokens}" if at_least else f"{prompt_tokens}"
        super().__init__(
            f"This model's maximum context length is {context} tokens. "
            f"However, your messages resulted in {counted} tokens. Please reduce the length of the messages.",
            param="messages",
        )


class InvalidKey(ApiError):
    """No key, or one that is unknown, revoked or expired."""

    status, type, default_code = 401, "invalid_request_error", "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="authorization")

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class QuotaExhausted(ApiError):
    """What is posted leaves too little. 401, not 429: the seed wins (contract.md §1, row 1)."""

    status, type, default_code = 401, "insufficient_quota", "insufficient_quota"


class AccessDenied(ApiError):
    """The key is good, but not for this."""

    status, type, default_code = 403, "access_denied", "access_denied"


class NotFound(ApiError):
    """No such path, or no such stored object of this key's."""

    status, type, default_code = 404, "not_found", "not_found"


class ModelNotFound(NotFound):
    """No such model, or none that this key may see."""

    default_code = "model_not_found"

    def __init__(self, model: str, known: str = "") -> None:
        hint = f" Available: {known}." if known else ""
        super().__init__(
            f"The model {quote(model)} does not exist or you do not have access to it.{hint}", param="model"
        )


class MethodNotAllowed(ApiError):
    """The path exists, the method on it does not."""

    status, type, default_code = 405, "invalid_request_error", "method_not_supported"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"Not allowed to {quote(method)} here. Allowed: {allowed}.")
        self.allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        return {"allow": self.allowed}


class BodyTooLarge(ApiError):
    """The body is over the server's limit."""

    status, type, default_code = 413, "invalid_request_error", "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than the {limit} bytes allowed.")


class RetryLater(ApiError):
    """A refusal that may pass with time. `retry_after`: seconds, None when no wait is known."""

    transient = True

    def __init__(self, message: str, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        return {
            "retry-after": str(max(1, ceil(self.retry_after))),
            "retry-after-ms": str(max(1, ceil(self.retry_after * 1000))),
        }


class RateLimited(RetryLater):
    """Over a limit of the caller's plan. `limits`: the headers that say how its limits are. `hopeless`: the same
    request will never pass, and the SDKs, which repeat every 429, are told not to."""

    status, type, default_code = 429, "rate_limit_exceeded", "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        code: str | None = None,
        limits: Mapping[str, str] | None = None,
        hopeless: bool = False,
    ) -> None:
        super().__init__(message, retry_after=retry_after, code=code)
        self.limits = dict(limits or {})
        self.hopeless = hopeless

    @property
    def headers(self) -> dict[str, str]:
        never = {"x-should-retry": "false"} if self.hopeless else {}
        return super().headers | never | self.limits


class InternalError(ApiError):
    """Our fault, or an upstream's broken answer. The message never says more than the client needs."""

    status, type = 500, "api_error"

    def __init__(self, message: str = "The server had an error while processing your request.", **more: Any) -> None:
        super().__init__(message, **more)


class UpstreamFailed(InternalError):
    """An upstream failed, or what it said is no answer. The message tells nothing of where it is."""

    transient = True

    def __init__(self, message: str = "The model's upstream failed to answer.", **more: Any) -> None:
        super().__init__(message, **more)


class Unavailable(RetryLater):
    """Overloaded, starting, stopping, or the upstream can't be reached."""

    status, type, default_code = 503, "service_unavailable", "service_unavailable"
