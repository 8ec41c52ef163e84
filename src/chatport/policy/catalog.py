"""Which models there are, by which names, and who may use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from msgspec import Struct, structs

from chatport.policy.keys import Caller
from chatport.targets import Target
from chatport.wire.chat import ChatRequest, ModelObject
from chatport.wire.errors import AccessDenied, ModelNotFound, quote

ANY = "/*"
"""The end of an id that stands for all models of an upstream."""

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
    fallbacks: tuple[str, ...] = ()
    """Ids of models that answer when no target does."""
    attempts: int = 1
    """Times that a request is sent at most, though once to every target."""
    deadline: float = 600.0
    """Seconds from a request's arrival after which no further attempt begins."""
    family: str | None = None
    """The id with a `*` that this model was found by; a key may be given it too."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    def open_to(self, caller: Caller, name: str) -> bool:
        """Whether the caller's key may ask for it by this name: a key may be given an alias, or the model itself."""
        return caller.models is None or not caller.models.isdisjoint((name, self.id, self.family))

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


def named(family: Model, name: str, rest: str) -> Model:
    """The one model of a family: `name` here, `rest` at its upstreams."""
    targets = tuple(structs.replace(target, model=rest) for target in family.targets)
    return structs.replace(family, id=name, targets=targets, family=family.id)


class Catalog:
    """Every model under every one of its names: those that are configured, and further ones that come and go. `look`
    has the house look for the further ones and tell of them by `serve_also`. `NAME/*` stands for every model that its
    upstream lists."""

    def __init__(self, models: Iterable[Model], look: Callable[[], Awaitable[None]] | None = None) -> None:
        self._look = look
        self._further: tuple[Model, ...] = ()
        self._listed: dict[str, tuple[str, ...]] = {}
        self.configure(models)

    def configure(self, models: Iterable[Model]) -> None:
        """Takes these in the place of the configured models it had."""
        every = list(models)
        self._configured = tuple(model for model in every if not model.id.endswith(ANY))
        self._families = {model.id.removesuffix("*"): model for model in every if model.id.endswith(ANY)}
        self._listed = {start: names for start, names in self._listed.items() if start in self._families}
        self.serve_also(self._further)

    def serve_also(self, models: Iterable[Model]) -> None:
        """Takes these in the place of the further models it had. A name that is configured stays what it is."""
        self._further = tuple(models)
        self._named = {name: model for model in self._configured for name in model.names}
        for model in self._further:
            for name in model.names:
                self._named.setdefault(name, model)

    async def look_for(self, name: str | None) -> None:
        """Looks for models that came or went, unless it has one of this name: those that are known need no look."""
        if self._look is not None and not (name is not None and self.has(name)):
            await self._look()

    def has(self, name: str) -> bool:
        """Whether it knows a model of this name, whoever may use it."""
        return name in self._named or self._relative(name) is not None

    @property
    def families(self) -> list[Model]:
        """The models that stand for all that their upstreams list."""
        return list(self._families.values())

    def learn(self, family: Model, listed: Iterable[str]) -> None:
        """What the upstream of a family lists now. Until it is known, every name is taken for one that it has."""
        self._listed[family.id.removesuffix("*")] = tuple(listed)

    def by_id(self, model_id: str) -> Model:
        """A model that the configuration names, a fallback. Raises KeyError."""
        return self._named[model_id]

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
        model = self._named.get(name) or self._relative(name)
        if model is None:
            raise ModelNotFound(name, self._available(caller))
        if not model.open_to(caller, name):
            raise AccessDenied(f"Your API key has no access to the model {quote(name)}.{self._hint(caller)}")
        return model

    def _relative(self, name: str) -> Model | None:
        """The model of a family that a name means."""
        for start, family in self._families.items():
            if name.startswith(start) and len(name) > len(start):
                rest = name.removeprefix(start)
                known = self._listed.get(start)
                return named(family, name, rest) if known is None or rest in known else None
        return None

    def _open_to(self, caller: Caller) -> Iterator[tuple[str, Model]]:
        return ((name, model) for name, model in self._all() if model.open_to(caller, name))

    def _all(self) -> Iterator[tuple[str, Model]]:
        yield from self._named.items()
        for start, rests in self._listed.items():
            for rest in rests:
                yield start + rest, named(self._families[start], start + rest, rest)

    def _available(self, caller: Caller) -> str:
        names = [name for name, _ in self._open_to(caller)]
        shown = ", ".join(names[:NAMED_AT_MOST])
        return f"{shown}, …" if len(names) > NAMED_AT_MOST else shown

    def _hint(self, caller: Caller) -> str:
        available = self._available(caller)
        return f" It may use: {available}." if available else ""
