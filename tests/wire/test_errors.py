"""contract.md §12 as a table: every class of error, what it becomes on the wire, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from chatport.wire import errors
from chatport.wire.errors import ApiError, ErrorBody, quote

INVALID = "invalid_request_error"

# status, type, code, param
TABLE: dict[ApiError, tuple[int, str, str | None, str | None]] = {
    errors.BadJSON("x"): (400, INVALID, None, None),
    errors.InvalidRequest("x", param="n", code="invalid_type"): (400, INVALID, "invalid_type", "n"),
    errors.Unsupported("x", param="tools"): (400, INVALID, "unsupported_parameter", "tools"),
    errors.ContextExceeded(8192, 9000): (400, INVALID, "context_length_exceeded", "messages"),
    errors.InvalidKey("x"): (401, INVALID, "invalid_api_key", "authorization"),
    errors.QuotaExhausted("Quota exhausted: x"): (401, "insufficient_quota", "insufficient_quota", None),
    errors.AccessDenied("x"): (403, "access_denied", "access_denied", None),
    errors.NotFound("x"): (404, "not_found", "not_found", None),
    errors.ModelNotFound("x"): (404, "not_found", "model_not_found", "model"),
    errors.MethodNotAllowed("PUT", "GET"): (405, INVALID, "method_not_supported", None),
    errors.BodyTooLarge(10): (413, INVALID, "request_too_large", None),
    errors.RateLimited("x"): (429, "rate_limit_exceeded", "rate_limit_exceeded", None),
    errors.InternalError(): (500, "api_error", None, None),
    errors.UpstreamFailed(): (500, "api_error", None, None),
    errors.Unavailable("x"): (503, "service_unavailable", "service_unavailable", None),
}

SPECIFIED = {
    400: "invalid_request_error",
    401: "invalid_api_key",
    403: "access_denied",
    404: "not_found",
    429: "rate_limit_exceeded",
    500: "api_error",
    503: "service_unavailable",
}
"""The specification's own table of statuses and names (contract.md §1, row 22)."""


def classes(root: type[ApiError]) -> Iterator[type[ApiError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


@pytest.mark.parametrize("error", TABLE, ids=lambda error: type(error).__name__)
def test_on_the_wire(error: ApiError) -> None:
    body = msgspec.json.decode(error.body(), type=ErrorBody, strict=True).error
    assert (error.status, body.type, body.code, body.param) == TABLE[error]
    assert body.message
    assert set(msgspec.json.decode(error.body())["error"]) == {"message", "type", "param", "code"}


def test_every_class_has_its_row() -> None:
    abstract = {ApiError, errors.RetryLater}
    ours = {each for each in classes(ApiError) if each.__module__ == errors.__name__}
    assert {type(error) for error in TABLE} == ours - abstract


def test_statuses_are_the_contracts() -> None:
    """408, 409, 422, 502 and 504 are never said (contract.md §12, §13)."""
    assert {error.status for error in TABLE} == {400, 401, 403, 404, 405, 413, 429, 500, 503}


@pytest.mark.parametrize(("status", "name"), SPECIFIED.items())
def test_the_specifications_names_are_said(status: int, name: str) -> None:
    """In `type` or in `code`; an insufficient quota, the second name of 401, in both."""
    said = {field for error in TABLE if error.status == status for field in (error.type, error.code)}
    assert name in said


@pytest.mark.parametrize(
    ("seconds", "header", "milliseconds"), [(0.0, "1", "1"), (0.2, "1", "200"), (1.0, "1", "1000"), (1.5, "2", "1500")]
)
@pytest.mark.parametrize("kind", [errors.RateLimited, errors.Unavailable])
def test_a_known_wait_is_told(kind: type[errors.RetryLater], seconds: float, header: str, milliseconds: str) -> None:
    error = kind("x", retry_after=seconds)
    assert error.headers == {"retry-after": header, "retry-after-ms": milliseconds}


def test_other_headers() -> None:
    assert errors.InvalidKey("x").headers == {"www-authenticate": "Bearer"}
    assert errors.MethodNotAllowed("PUT", "GET, POST").headers == {"allow": "GET, POST"}
    assert errors.Unavailable("x").headers == {}
    assert errors.RateLimited("x", limits={"x-ratelimit-limit-tokens": "1"}, hopeless=True).headers == {
        "x-ratelimit-limit-tokens": "1",
        "x-should-retry": "false",
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0.7", '"0.7"'),
        (2.5, "2.5"),
        (None, "null"),
        ([1, "a"], '[1,"a"]'),
        ("春", '"春"'),
        ("x" * 100, '"' + "x" * 62 + "…"),
        ("\ud800", "'\\ud800'"),
    ],
)
def test_what_is_quoted(value: object, shown: str) -> None:
    assert quote(value) == shown
    assert len(quote(value)) <= errors.QUOTE_LIMIT
