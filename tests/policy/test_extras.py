"""Fields that the contract does not know, and where they end."""

from __future__ import annotations

import msgspec
import pytest

from chatport.policy.extras import refuse_unknown, request_for
from chatport.targets import Target
from chatport.wire.chat import ChatRequest, GivenRequest
from chatport.wire.decode import decode_request
from chatport.wire.errors import InvalidRequest

BODY = b'{"model":"m","top_k":40,"messages":[{"role":"user","content":"hi","mood":"sunny"}],"temperature":0}'
KNOWN = b'{"model":"m","messages":[{"role":"user","content":"hi","mood":"sunny"}]}'
REJECT, DROP, FORWARD = (
    Target(id=kind, backend="b", model="m", extra_params=kind) for kind in ("reject", "drop", "forward")
)


def decoded(body: bytes = BODY) -> ChatRequest:
    return decode_request(body, keep_unknown=True)


def test_unless_asked_for_they_are_a_fault() -> None:
    with pytest.raises(InvalidRequest, match="top_k"):
        decode_request(BODY)


def test_rejecting_names_the_first() -> None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_unknown(decoded(), REJECT)
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", "top_k")
    refuse_unknown(decoded(KNOWN), REJECT)
    for target in (DROP, FORWARD):
        refuse_unknown(decoded(), target)


def test_dropping_leaves_what_is_known() -> None:
    request = request_for(DROP, decoded(), BODY)
    assert type(request) is ChatRequest
    assert msgspec.json.decode(msgspec.json.encode(request)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
    }


@pytest.mark.parametrize("body", [BODY, KNOWN])
def test_forwarding_means_as_given(body: bytes) -> None:
    request = request_for(FORWARD, decoded(body), body)
    assert isinstance(request, GivenRequest)
    assert msgspec.json.decode(msgspec.json.encode(request.given)) == msgspec.json.decode(body)


def test_what_is_known_is_checked_all_the_same() -> None:
    for fault in (b'"temperature":3', b'"temperature":"hot"', b'"messages":[]', b'"top_logprobs":2'):
        with pytest.raises(InvalidRequest) as caught:
            decoded(BODY.replace(b'"temperature":0', fault))
        assert caught.value.code != "unknown_parameter" or caught.value.param == "top_k"
    with pytest.raises(InvalidRequest):
        decoded(b"{")
    with pytest.raises(InvalidRequest):
        decoded(b'{"model":"m","top_k":1,"messages":[{"role":"user","content":"\xff"}]}')
