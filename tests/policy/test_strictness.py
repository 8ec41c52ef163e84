"""Fields that the API does not have, and who sends them."""

from __future__ import annotations

import json

import pytest

from chatport.policy import strictness
from chatport.policy.keys import Caller
from chatport.policy.strictness import UnknownFields
from chatport.wire.decode import decode_request


def note(fields: UnknownFields, key: str, **more: object) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "secret"}], **more}).encode()
    fields.note(Caller(key, "n", admin=False, models=None), decode_request(body, keep_unknown=True))


def test_each_is_counted_by_who_sends_it(caplog: pytest.LogCaptureFixture) -> None:
    fields = UnknownFields()
    for key in ("key_b", "key_a", "key_b"):
        note(fields, key, top_k=4, min_p=0.1)
    note(fields, "key_a")
    assert [(entry.key_id, entry.field, entry.count) for entry in fields.listing()] == [
        ("key_a", "min_p", 1),
        ("key_a", "top_k", 1),
        ("key_b", "min_p", 2),
        ("key_b", "top_k", 2),
    ]
    assert len(caplog.records) == 4
    assert "secret" not in caplog.text


def test_clients_can_not_make_it_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictness, "MOST_ENTRIES", 2)
    fields = UnknownFields()
    note(fields, "key_a", **{f"x{n}": 1 for n in range(9)})
    note(fields, "key_a", **{"y" * 500: 1})
    assert [entry.field for entry in fields.listing()] == ["x0", "x1"]
