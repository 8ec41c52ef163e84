"""The settings of a model that is somewhere else: `[[models]]` with `[[models.targets]]`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from chatport.config.pricing import ListedModel, PriceConfig
from chatport.config.terms import Name, PositiveSeconds, Settings, Word, about, matching
from chatport.providers import PROVIDERS
from chatport.targets import Feature

ProviderName = Annotated[str, matching(rf"^({'|'.join(PROVIDERS)})\Z", " or ".join(f'"{name}"' for name in PROVIDERS))]
BaseUrl = Annotated[
    str,
    # What it refuses may hold a password.
    matching(
        r"^https?://[^\s/@?#]+(/[^\s?#]*)?\Z", "http://HOST:PORT/PATH or https://…, without a user's name", secret=True
    ),
]
Key = Annotated[str, matching(r"^[\x21-\x7e]+\Z", "a key, printable ASCII without spaces", secret=True)]
Missing = Annotated[Feature, Meta(extra={"allowed": "one of " + ", ".join(f'"{feature}"' for feature in Feature)})]
Headers = Annotated[
    dict[str, str], Meta(extra={"allowed": "a table of headers and their values, text", "secret": True})
]
Fields = Annotated[dict[str, Any], Meta(extra={"allowed": "a table of a request's fields"})]


class UpstreamTarget(Settings, frozen=True):
    """A place that answers for the model: one of the providers that are known by name, or any `base_url`."""

    provider: Annotated[
        ProviderName | None,
        about("A provider that is known by name: its address, its key's variable, its quirks."),
    ] = None
    backend: Annotated[
        Literal["openai"] | None, about("How to talk to a `base_url` without a `provider`: as to OpenAI.")
    ] = None
    base_url: Annotated[
        BaseUrl | None, about("The API's address, up to and without `/chat/completions`. Not set: the provider's.")
    ] = None
    api_key: Annotated[
        Key | None, about("The upstream's key, best as `${VARIABLE}`. Not set: the provider's own variable.")
    ] = None
    api_keys: Annotated[
        tuple[Key, ...], about("Several keys instead: each is used as if it were a target of its own.")
    ] = ()
    model: Annotated[Word | None, about("The upstream's name for the model. Not set: the same as here.")] = None
    name: Annotated[
        Name | None, about("What headers and logs call this target. Not set: the provider's name, or `upstream`.")
    ] = None
    priority: Annotated[
        int, Meta(ge=0, le=1000), about("Targets with a higher number are asked when those with a lower one fail.")
    ] = 0
    weight: Annotated[
        float, Meta(gt=0, le=1000), about("Its share of the requests among targets of the same priority.")
    ] = 1.0
    max_concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None, about("Requests at the same time. Not set: any number.")
    ] = None
    extra_params: Annotated[
        Literal["reject", "drop", "forward"],
        about("What happens to fields of a request that the API does not know: a 400, silence, or the upstream sees."),
    ] = "reject"
    lacks: Annotated[
        tuple[Missing, ...],
        about("What the target can't do: a request that asks for it goes to another, or gets a 400."),
    ] = ()
    extra_headers: Annotated[Headers | None, about("Headers that every request to it carries besides.")] = None
    extra_body: Annotated[Fields | None, about("Fields that every request to it has, whatever the client gave.")] = None
    ca_file: Annotated[Word | None, about("PEM file of the authorities to trust, instead of the system's.")] = None
    connect_seconds: Annotated[PositiveSeconds, about("Time for a connection: name, TCP, proxy and TLS.")] = 5.0
    send_seconds: Annotated[PositiveSeconds, about("Time for the request to leave.")] = 60.0
    first_byte_seconds: Annotated[
        PositiveSeconds, about("Time from there to the reply's first byte: without streaming, for the whole answer.")
    ] = 600.0
    silence_seconds: Annotated[PositiveSeconds, about("Silence within a reply.")] = 300.0
    total_seconds: Annotated[PositiveSeconds, about("Time for the whole of it.")] = 3600.0

    def __repr__(self) -> str:
        """Without the key and the headers."""
        return f"UpstreamTarget(provider={self.provider!r}, base_url={self.base_url!r}, model={self.model!r})"

    def __rich_repr__(self) -> Any:
        yield repr(self)

    @property
    def keys(self) -> tuple[str | None, ...]:
        """Every key there is; one None where it runs without."""
        return self.api_keys or (self.api_key,)


class RoutedModel(Settings, frozen=True):
    """A model that upstreams answer for."""

    id: Annotated[
        Name,
        about("The model's name in requests and replies. `NAME/*` passes on every model that its target lists."),
    ]
    targets: Annotated[
        tuple[UpstreamTarget, ...],
        about("Who answers; the next one where one fails."),
        Meta(extra={"allowed": "tables of their own, [[models.targets]]"}),
    ]
    aliases: Annotated[
        tuple[Name, ...], about("Further names that requests may use. The reply's `model` is the id all the same.")
    ] = ()
    fallbacks: Annotated[tuple[Name, ...], about("Ids of models that answer when no target does, in this order.")] = ()
    attempts: Annotated[
        int,
        Meta(ge=1, le=20),
        about("Times that a request is sent upstream at most; every target is tried once, however many there are."),
    ] = 3
    deadline_seconds: Annotated[
        PositiveSeconds, about("Time from the request's arrival after which no further attempt begins.")
    ] = 600.0
    price: Annotated[
        PriceConfig | None,
        about("What it costs, whichever target answers. Not set: what an imported list of prices says."),
        Meta(extra={"allowed": "a table of its own, [models.price]"}),
    ] = None
    price_model: Annotated[
        ListedModel | None,
        about(
            "The entry of an imported list of prices that its price is. Not set: the one of each target's provider and "
            "model."
        ),
    ] = None
    owned_by: Annotated[Name, about("What the list of models says as `owned_by`.")] = "chatport"

    @property
    def passes_all(self) -> bool:
        """Whether it stands for every model of its target."""
        return self.id.endswith("/*")
