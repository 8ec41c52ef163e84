"""Who may come in: minting, bringing along, authenticating, revoking."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatport.policy.keys import LONGEST_KEY, LONGEST_NAME, SHORTEST_KEY, Caller, Keys
from chatport.store import Store, open_store
from chatport.store.errors import StoreUnavailable
from chatport.wire.errors import InvalidKey, InvalidRequest, NotFound

NOW = 1_800_000_000.0
OWN_KEY = "operators-own-key-0123456789"


@pytest.fixture
def keys(store: Store) -> Keys:
    return Keys(store.keys)


async def test_a_new_key_opens_the_door(keys: Keys) -> None:
    new = await keys.create(name="laptop", models=["gpt-4"], now=NOW)
    assert re.fullmatch(r"sk-cp-[A-Za-z0-9]{40}", new.key)
    assert new.key.startswith(new.prefix)
    assert len(new.prefix) == len("sk-cp-") + 4
    caller = keys.authenticate(f"Bearer {new.key}", NOW)
    assert caller == Caller(new.id, "laptop", False, frozenset({"gpt-4"}))


async def test_an_admin_key_is_told_by_its_beginning(keys: Keys) -> None:
    new = await keys.create(name="root", admin=True, now=NOW)
    assert re.fullmatch(r"sk-cp-admin-[A-Za-z0-9]{40}", new.key)
    assert keys.authenticate(f"Bearer {new.key}", NOW) == Caller(new.id, "root", True, None)


async def test_no_two_keys_are_alike(keys: Keys) -> None:
    made = [await keys.create(name="n", now=NOW) for _ in range(5)]
    assert len({new.key for new in made}) == len({new.id for new in made}) == 5


async def test_a_new_keys_text_form_hides_it(keys: Keys) -> None:
    new = await keys.create(name="n", now=NOW)
    assert new.key not in f"{new} {new!r}"


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   ", " Bearer "])
async def test_the_scheme_is_compared_case_insensitively(keys: Keys, scheme: str) -> None:
    new = await keys.create(name="n", now=NOW)
    assert keys.authenticate(scheme + new.key + " ", NOW).key_id == new.id


@pytest.mark.parametrize("header", [None, "", " ", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearersk-cp-1"])
async def test_without_a_bearer_key_the_client_is_told_where_to_put_it(keys: Keys, header: str | None) -> None:
    with pytest.raises(InvalidKey, match=r"didn't provide an API key.*Authorization: Bearer YOUR_KEY") as caught:
        keys.authenticate(header, NOW)
    assert (caught.value.status, caught.value.code, caught.value.param) == (401, "invalid_api_key", "authorization")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("sk-cp-0123456789abcdefwxyz", ": sk-cp…wxyz."),
        ("x" * (SHORTEST_KEY - 1), "provided."),
        ("two words of a long enough key", "provided."),
        ("schlüssel-mit-umlauten-0123456789", "provided."),
        ("nul\0" * 10, "provided."),
        ("lone\udc80surrogate" * 3, "provided."),
    ],
)
async def test_a_wrong_key_is_refused_and_at_most_masked(keys: Keys, key: str, shown: str) -> None:
    await keys.create(name="n", now=NOW)
    with pytest.raises(InvalidKey) as caught:
        keys.authenticate(f"Bearer {key}", NOW)
    assert caught.value.message.endswith(shown)
    assert key not in caught.value.message


async def test_a_revoked_key_is_refused(keys: Keys) -> None:
    new = await keys.create(name="n", now=NOW)
    other = await keys.create(name="other", now=NOW)
    assert (await keys.revoke(new.id, NOW)).id == new.id
    with pytest.raises(InvalidKey, match="revoked"):
        keys.authenticate(f"Bearer {new.key}", NOW)
    assert keys.authenticate(f"Bearer {other.key}", NOW).key_id == other.id


async def test_a_key_is_good_until_the_moment_it_expires(keys: Keys) -> None:
    new = await keys.create(name="n", now=NOW, expires_at=NOW + 60)
    assert keys.authenticate(f"Bearer {new.key}", NOW + 59).key_id == new.id
    with pytest.raises(InvalidKey, match="expired"):
        keys.authenticate(f"Bearer {new.key}", NOW + 60)


async def test_a_key_can_be_revoked_by_its_visible_prefix(keys: Keys) -> None:
    new = await keys.create(name="n", now=NOW)
    await keys.revoke(new.prefix, NOW)
    assert [row.revoked_at for row in await keys.list()] == [int(NOW)]


async def test_a_prefix_of_several_keys_revokes_none(keys: Keys) -> None:
    rows = [await keys.register(f"same-beginning-{n}", name="n", now=NOW) for n in range(2)]
    with pytest.raises(InvalidRequest, match=rf"several keys.*({rows[0].id}|{rows[1].id})"):
        await keys.revoke("same", NOW)
    assert [row.revoked_at for row in await keys.list()] == [None, None]


async def test_revoking_an_unknown_key_says_so(keys: Keys) -> None:
    with pytest.raises(NotFound, match="key_nothing"):
        await keys.revoke("key_nothing", NOW)


async def test_a_store_is_empty_until_its_first_key_and_never_again(keys: Keys) -> None:
    assert await keys.is_empty()
    new = await keys.create(name="n", now=NOW)
    assert not await keys.is_empty()
    await keys.revoke(new.id, NOW)
    assert not await keys.is_empty()


async def test_a_key_brought_along_is_registered_once(keys: Keys) -> None:
    first = await keys.register(OWN_KEY, name="bootstrap", now=NOW)
    again = await keys.register(OWN_KEY, name="bootstrap", now=NOW + 100)
    assert first == again
    assert len(await keys.list()) == 1
    assert keys.authenticate(f"Bearer {OWN_KEY}", NOW) == Caller(first.id, "bootstrap", False, None)


async def test_registering_again_does_not_bring_a_revoked_key_back(keys: Keys) -> None:
    row = await keys.register(OWN_KEY, name="bootstrap", now=NOW)
    await keys.revoke(row.id, NOW)
    assert (await keys.register(OWN_KEY, name="bootstrap", now=NOW)).revoked_at == int(NOW)
    with pytest.raises(InvalidKey, match="revoked"):
        keys.authenticate(f"Bearer {OWN_KEY}", NOW)


async def test_one_key_can_not_be_admin_and_not(keys: Keys) -> None:
    await keys.register(OWN_KEY, name="n", now=NOW)
    with pytest.raises(ValueError, match="registered as an API key already and can't be an admin key too"):
        await keys.register(OWN_KEY, name="n", admin=True, now=NOW)
    assert not keys.authenticate(f"Bearer {OWN_KEY}", NOW).admin


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("x" * (SHORTEST_KEY - 1), f"{SHORTEST_KEY} to {LONGEST_KEY} characters; this one has 15"),
        ("x" * (LONGEST_KEY + 1), f"{SHORTEST_KEY} to {LONGEST_KEY} characters; this one has 513"),
        ("0123456789 0123456789", "printable ASCII"),
        ("0123456789-0123456789\n", "printable ASCII"),
        ("schlüssel-0123456789", "printable ASCII"),
    ],
)
async def test_a_key_that_would_not_do_is_explained_and_not_repeated(keys: Keys, key: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        await keys.register(key, name="n", now=NOW)
    assert key not in str(caught.value)
    assert await keys.is_empty()


@pytest.mark.parametrize("name", ["", "x" * (LONGEST_NAME + 1), "two\nlines", "nul\0"])
async def test_a_name_that_would_not_do_is_refused(keys: Keys, name: str) -> None:
    with pytest.raises(ValueError, match="1 to 100 printable characters"):
        await keys.create(name=name, now=NOW)


async def test_load_sees_what_another_process_did(store_url: str, keys: Keys) -> None:
    async with open_store(store_url) as store:
        new = await Keys(store.keys).create(name="n", now=NOW)
    with pytest.raises(InvalidKey):
        keys.authenticate(f"Bearer {new.key}", NOW)
    await keys.load()
    assert keys.authenticate(f"Bearer {new.key}", NOW).key_id == new.id


async def test_a_store_that_is_down_turns_nobody_away(store: Store, keys: Keys) -> None:
    new = await keys.create(name="n", now=NOW)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await keys.load()
    assert keys.authenticate(f"Bearer {new.key}", NOW).key_id == new.id


async def test_no_key_is_anywhere_in_the_files(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/keys.db") as store:
        keys = Keys(store.keys)
        made = [(await keys.create(name="n", admin=admin, now=NOW)).key for admin in (False, True)]
        await keys.register(OWN_KEY, name="n", now=NOW)
        with_log = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert "keys.db-wal" in with_log
    files = [*with_log.values(), *(file.read_bytes() for file in tmp_path.iterdir())]
    for key in [*made, OWN_KEY]:
        assert not [file for file in files if key[-16:].encode() in file]
