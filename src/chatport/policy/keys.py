"""API keys: who may come in.

A key is `sk-cp-` and 40 random letters and digits (238 bits), an admin's begins `sk-cp-admin-`. It is shown once, when
it is made; kept are its SHA-256 and the beginning that people tell their keys apart by. Hashing once is enough, and
fast, because nobody can guess 238 bits; keys that operators bring along must be long enough that this stays true.

Every request is authenticated from memory, so a store that is down turns nobody away. `load` fills the memory, and is
called again whenever the store says that keys have changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Callable, Collection

from msgspec import Struct

from chatport.store.budgets import BudgetRow
from chatport.store.keys import KeyRow, KeyRows
from chatport.store.limits import LimitRow, Rules
from chatport.wire.errors import InvalidKey, InvalidRequest, NotFound, quote

ALPHABET = string.ascii_letters + string.digits
RANDOM_LENGTH = 40
"""Characters of `ALPHABET` in a key: 40 * log2(62) = 238 bits."""

KEY_START = "sk-cp-"
ADMIN_KEY_START = "sk-cp-admin-"

VISIBLE = 4
"""Random characters that a key's visible prefix shows: 24 of its 238 bits."""

SHORTEST_KEY = 16
"""Characters that a key brought along by the operator must have."""

LONGEST_KEY = 512
"""Characters of such a key, and of what is looked up at all."""

ACTOR = "keys create"
"""Who makes a key, and sets what it begins with, for the audit log."""

REVOKER = "keys revoke"
REGISTRAR = "bootstrap"
"""The same of a key that the operator brings along."""

LONGEST_NAME = 100
"""Characters of a key's name."""

NO_KEY = (
    "You didn't provide an API key. Provide it in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)

_printable = re.compile(r"[!-~]+")


class Caller(Struct, frozen=True):
    """Whoever sent a request, by the key it came with. `models` None means every model."""

    key_id: str
    name: str
    admin: bool
    models: frozenset[str] | None
    owner: str | None = None
    keeps_content: bool | None = None


class NewKey(Struct, frozen=True, kw_only=True):
    """A key just made; the only time that `key` is seen."""

    id: str
    key: str
    prefix: str
    name: str
    admin: bool
    models: frozenset[str] | None
    created_at: int
    expires_at: int | None
    owner: str | None = None
    rules: Rules | None = None
    """Its own limits."""

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r}, prefix={self.prefix!r})"


class Keys:
    """Every key there is. What reads and writes rows may raise StoreUnavailable; `authenticate` never does."""

    def __init__(self, rows: KeyRows) -> None:
        self._rows = rows
        self._by_digest: dict[bytes, tuple[KeyRow, Caller]] = {}
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Takes every key into memory. One at a time, so that an older state never replaces a newer one."""
        async with self._loading:
            rows = await self._rows.all()
            self._by_digest = {row.digest: (row, _caller(row)) for row in rows}

    def authenticate(self, authorization: str | None, now: float) -> Caller:
        """The caller that an Authorization header names (contract.md §3). `now`: Unix seconds. Raises InvalidKey."""
        key = _bearer(authorization)
        if key is None:
            raise InvalidKey(NO_KEY)
        digest = _digest(key)
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(found[0].digest, digest):
            raise InvalidKey(f"Invalid API key provided{_masked(key)}.")
        row, caller = found
        if row.revoked_at is not None:
            raise InvalidKey(f"This API key has been revoked{_masked(key)}.")
        if row.expires_at is not None and row.expires_at <= now:
            raise InvalidKey(f"This API key has expired{_masked(key)}.")
        return caller

    async def create(  # noqa: PLR0913  each is one of the key's properties, by its name
        self,
        *,
        name: str,
        now: float,
        admin: bool = False,
        models: Collection[str] | None = None,
        expires_at: float | None = None,
        owner: str | None = None,
        rules: Rules | None = None,
        keeps_content: bool | None = None,
        budget_for: Callable[[str], BudgetRow] | None = None,
    ) -> NewKey:
        """Mints a key, limited by its own rules and budget from the start. `now`, `expires_at`: Unix seconds;
        `budget_for`: makes the budget of a key with this id.

        Raises ValueError for a name that can't be one.
        """
        start = ADMIN_KEY_START if admin else KEY_START
        key = start + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
        row = KeyRow(
            id=_new_id(),
            name=_checked_name(name),
            digest=_digest(key),
            prefix=key[: len(start) + VISIBLE],
            admin=admin,
            models=None if models is None else frozenset(models),
            created_at=int(now),
            expires_at=None if expires_at is None else int(expires_at),
            owner=None if owner is None else checked_owner(owner),
            keeps_content=keeps_content,
        )
        limit = None if rules is None else LimitRow(kind="key", subject=row.id, rules=rules, changed_at=int(now))
        await self._rows.add(row, limit, ACTOR, None if budget_for is None else budget_for(row.id))
        await self.load()
        return NewKey(
            id=row.id,
            key=key,
            prefix=row.prefix,
            name=row.name,
            admin=admin,
            models=row.models,
            created_at=row.created_at,
            expires_at=row.expires_at,
            owner=row.owner,
            rules=rules,
        )

    async def register(self, key: str, *, name: str, now: float, admin: bool = False) -> KeyRow:
        """Takes in a key that the operator brings along. One that is known already stays as it is, revoked if it was.

        Raises ValueError, never repeating the key: too short, too long, characters that a header can't carry, or
        known with the other kind of rights.
        """
        row = KeyRow(
            id=_new_id(),
            name=_checked_name(name),
            digest=_digest(_checked_key(key)),
            prefix=key[:VISIBLE],
            admin=admin,
            models=None,
            created_at=int(now),
        )
        kept = await self._rows.add(row, actor=REGISTRAR)
        if kept.admin != admin:
            rights = ("an API key", "an admin key")
            raise ValueError(
                f"This key is registered as {rights[kept.admin]} already and can't be {rights[admin]} too."
            )
        await self.load()
        return kept

    async def list(self) -> tuple[KeyRow, ...]:
        """Every key, revoked ones too, oldest first."""
        return tuple(await self._rows.all())

    async def is_empty(self) -> bool:
        """Whether no key was ever made."""
        return not await self._rows.all()

    async def revoke(self, id_or_prefix: str, now: float) -> KeyRow:
        """Ends a key for good; returns it as it was found. Raises what `find` does."""
        found = await self.find(id_or_prefix)
        await self._rows.revoke(found.id, int(now))
        await self.load()
        return found

    async def find(self, id_or_prefix: str) -> KeyRow:
        """A key, be it revoked or not. Raises NotFound; InvalidRequest for a prefix of several."""
        found = [row for row in await self._rows.all() if id_or_prefix in {row.id, row.prefix}]
        if not found:
            raise NotFound(f"No key with the id or prefix {quote(id_or_prefix)}.")
        if len(found) > 1:
            ids = ", ".join(row.id for row in found)
            raise InvalidRequest(f"The prefix {quote(id_or_prefix)} is that of several keys. Give an id: {ids}.")
        return found[0]


def _caller(row: KeyRow) -> Caller:
    return Caller(row.id, row.name, row.admin, row.models, row.owner, row.keeps_content)


def _bearer(authorization: str | None) -> str | None:
    """The token of a Bearer header; None where there is none to speak of."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _masked(key: str) -> str:
    """What a message may show of a key: enough to know it by, and nothing of one too short to hide the rest."""
    if len(key) < SHORTEST_KEY or not _printable.fullmatch(key):
        return ""
    return f": {key[:5]}…{key[-4:]}"


def _new_id() -> str:
    return "key_" + "".join(secrets.choice(ALPHABET) for _ in range(16))


def _checked_key(key: str) -> str:
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError(f"A key must have {SHORTEST_KEY} to {LONGEST_KEY} characters; this one has {len(key)}.")
    if not _printable.fullmatch(key):
        raise ValueError("A key may hold only printable ASCII characters, without spaces.")
    return key


def _checked_name(name: str) -> str:
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise ValueError(f"A key's name must have 1 to {LONGEST_NAME} printable characters; got {quote(name)}.")
    return name


def checked_owner(name: str) -> str:
    """The name of an owner. Raises ValueError; `*` is none, since limits say it for each owner."""
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable()) or name == "*":
        raise ValueError(f"An owner's name must have 1 to {LONGEST_NAME} printable characters; got {quote(name)}.")
    return name
