"""The key of a chat: minted, renewed and revoked on the database of a real server, or given by the environment."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from chatport.cli.chat.access import LIFETIME, RENEW_BEFORE, MintedKey, given_key, minted_key
from chatport.cli.chat.errors import ChatError, KeyRefused
from chatport.cli.chat.transport import Transport
from chatport.config import Config, load
from support.chats import Chats


def config_of(chats: Chats) -> Config:
    return load(chats.server.home / "chatport.toml", {"CHATPORT_HOME": str(chats.server.home)})


def transport_of(chats: Chats) -> Transport:
    return Transport(f"{chats.server.url}/v1", direct=True)


def test_a_key_that_expires_is_replaced_before_it_does(chats: Chats) -> None:
    transport = transport_of(chats)
    access = MintedKey(config_of(chats), transport, lifetime=2)
    first = access.key()
    time.sleep(2.1)
    with pytest.raises(KeyRefused, match="expired"):
        transport.get("/models", first)
    second = access.key()
    assert second != first
    transport.get("/models", second)
    access.close()
    assert {key["state"] for key in chats.minted()} == {"revoked"}


def test_a_key_is_kept_as_long_as_it_is_good(chats: Chats) -> None:
    known = {key["id"] for key in chats.minted()}
    now = time.time()
    access = MintedKey(config_of(chats), transport_of(chats), clock=lambda: now)
    first = access.key()
    now += LIFETIME - RENEW_BEFORE - 1
    assert access.key() == first
    now += 1
    assert access.key() != first
    earlier, later = (key for key in chats.minted() if key["id"] not in known)
    assert (earlier["state"], later["state"]) == ("revoked", "open")
    access.close()
    access.close()
    assert {key["state"] for key in chats.minted()} == {"revoked"}


def test_an_error_in_the_chat_revokes_the_key_too(chats: Chats) -> None:
    with suppress(ZeroDivisionError), minted_key(config_of(chats), transport_of(chats)) as access:
        access.key()
        assert "open" in {key["state"] for key in chats.minted()}
        raise ZeroDivisionError
    assert {key["state"] for key in chats.minted()} == {"revoked"}


def test_nothing_is_minted_before_it_is_needed(chats: Chats) -> None:
    before = chats.minted()
    with minted_key(config_of(chats), transport_of(chats)):
        pass
    assert chats.minted() == before


@pytest.mark.parametrize("made", [False, True], ids=["no database", "another database"])
def test_a_server_on_another_database(chats: Chats, tmp_path: Path, made: bool) -> None:
    other = Config(home=tmp_path)
    if made:
        (tmp_path / "chatport.db").touch()
    with pytest.raises(KeyRefused, match=f"does not work on the database of {tmp_path}"):
        MintedKey(other, transport_of(chats)).key()
    assert (tmp_path / "chatport.db").exists() == made


@pytest.mark.parametrize(
    ("environ", "value", "origin"),
    [
        ({"CHATPORT_API_KEY": "sk-a", "OPENAI_API_KEY": "sk-b"}, "sk-a", "It came from CHATPORT_API_KEY."),
        ({"CHATPORT_API_KEY": " ", "OPENAI_API_KEY": "sk-b\n"}, "sk-b", "It came from OPENAI_API_KEY."),
        ({}, None, "None was given: put it into CHATPORT_API_KEY or OPENAI_API_KEY."),
    ],
)
def test_the_environment_s_key(environ: dict[str, str], value: str | None, origin: str) -> None:
    key = given_key(environ)
    assert (key.key(), key.origin) == (value, origin)


@pytest.mark.parametrize("value", ["sk-a\nx-evil: 1", "密钥", "two words"])
def test_a_key_that_no_header_can_carry(value: str) -> None:
    with pytest.raises(ChatError, match="CHATPORT_API_KEY holds no key") as raised:
        given_key({"CHATPORT_API_KEY": value})
    assert value not in str(raised.value)
