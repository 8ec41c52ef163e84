"""Which models there are, by which names, and who may use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from msgspec import Struct

from chatport.policy.keys import Caller
from chatport.targets import Target
from chatport.wire.chat import ChatRequest, ModelObject
from chatport.wire.errors import AccessDenied, ModelNotFound, quote

NAMED_AT_MOST = 8
"""Names that the message about an unknown model lists."""


class Model(Struct, frozen=True, kw_only=True):
    """A model as clients see it, and the targets that answer for it, best first."""

    id: str
    aliases: tuple[str, ...] = ()
    targets: tuple[Target, ...]
    created: int
    """Unix seconds."""
    owned_by: str
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    def open_to(self, caller: Caller, name: str) -> bool:
        """Whether the caller's key may ask for it by this name: a key may be given an alias, or the model itself."""
        return caller.models is None or name in caller.models or self.id in caller.models

    def described_as(self, name: str) -> ModelObject:
        """What GET /v1/models says of it under one of its names."""
        return ModelObject(
            id=name,
            object="model",
            created=self.created,
            owned_by=self.owned_by,
            context_length=self.context_length,
            capabilities=list(self.capabilities),
        )


class Catalog:
    """Every model under every one of its names: those that are configured, and further ones that come and go. `look`
    has the house look for the further ones and tell of them by `serve_also`."""

    def __init__(self, models: Iterable[Model], look: Callable[[], Awaitable[None]] | None = None) -> None:
        self._configured = tuple(models)
        self._look = look
        self.serve_also(())

    def serve_also(self, models: Iterable[Model]) -> None:
        """Takes these in the place of the further models it had. A name that is configured stays what it is."""
        self._named = {name: model for model in self._configured for name in model.names}
        for model in models:
            for name in model.names:
                self._named.setdefault(name, model)

    async def look_for(self, name: str | None) -> None:
        """Looks for models that came or went, unless it has one of this name: those that are known need no look."""
        if self._look is not None and name not in self._named:
            await self._look()

    def find(self, request: ChatRequest, caller: Caller) -> Model:
        """The model a request names. Raises ModelNotFound, AccessDenied, in that order (contract.md §3)."""
        return self._lookup(request.model, caller)

    def describe(self, name: str, caller: Caller) -> ModelObject:
        """One entry of the listing; the errors are `find`'s."""
        return self._lookup(name, caller).described_as(name)

    def listing(self, caller: Caller) -> list[ModelObject]:
        """Every name this caller may ask for, aliases included: each is accepted by create (§15)."""
        return [model.described_as(name) for name, model in self._open_to(caller)]

    def _lookup(self, name: str, caller: Caller) -> Model:
        model = self._named.get(name)
        if model is None:
            raise ModelNotFound(name, self._available(caller))
        if not model.open_to(caller, name):
            raise AccessDenied(f"Your API key has no access to the model {quote(name)}.{self._hint(caller)}")
        return model

    def _open_to(self, caller: Caller) -> Iterator[tuple[str, Model]]:
        return ((name, model) for name, model in self._named.items() if model.open_to(caller, name))

    def _available(self, caller: Caller) -> str:
        names = [name for name, _ in self._open_to(caller)]
        shown = ", ".join(names[:NAMED_AT_MOST])
        return f"{shown}, …" if len(names) > NAMED_AT_MOST else shown

    def _hint(self, caller: Caller) -> str:
        available = self._available(caller)
        return f" It may use: {available}." if available else ""
