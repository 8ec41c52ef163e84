"""Fields of a request that the contract does not know, and what each target wants done with them."""

from __future__ import annotations

from chatport.targets import Target
from chatport.wire.chat import ChatRequest, GivenRequest
from chatport.wire.decode import as_given, as_known
from chatport.wire.fields import unknown_parameter


def refuse_unknown(request: ChatRequest, target: Target) -> None:
    """Raises InvalidRequest, naming the first unknown field, where the target rejects them."""
    if type(request) is GivenRequest and target.extra_params == "reject":
        raise unknown_parameter(request.unknown[0])


def request_for(target: Target, request: ChatRequest, body: bytes) -> ChatRequest:
    """The request as the target gets it. `body`: as received.

    Forwarding means as given, down to keys inside of messages and tools, of which the typed request knows nothing.
    """
    if target.extra_params == "forward":
        return as_given(request, body)
    return as_known(request) if type(request) is GivenRequest else request
