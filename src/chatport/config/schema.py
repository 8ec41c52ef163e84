"""Every setting: its name, what it means, what is allowed, what it is when not set.

These structs are the only list of settings there is. Names and meanings are public: a file that is valid today stays
valid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from chatport.config.limits import LimitConfig
from chatport.config.pricing import ListedModel, PriceConfig
from chatport.config.terms import (
    KIB,
    MIB,
    ModelPath,
    Name,
    PositiveSeconds,
    Seconds,
    Settings,
    StoreUrl,
    Switch,
    TrustedProxy,
    Word,
    about,
    matching,
)
from chatport.config.upstreams import RoutedModel


class ServerConfig(Settings, frozen=True):
    """Where the server listens, and how much it lets one client take."""

    host: Annotated[Word, about("Address to listen on. The default can be reached from this machine only.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int, Meta(ge=0, le=65_535), about("Port to listen on. 0 takes any free one; start-up says which.")
    ] = 8000
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("The least severe lines that are logged.")
    ] = "info"
    log_format: Annotated[Literal["plain", "json"], about("Log lines for people, or for programs.")] = "plain"
    uds: Annotated[
        Word | None, about("Path of a Unix socket to listen on instead of an address, for a proxy on the same machine.")
    ] = None
    tls_cert: Annotated[
        Word | None, about("PEM file of the certificate and its chain: the server then speaks HTTPS.")
    ] = None
    tls_key: Annotated[Word | None, about("PEM file of its key. Not set: it is in the certificate's file.")] = None
    strict: Annotated[
        Literal["enforce", "report"],
        about(
            'Fields that the API does not have: "enforce" refuses them, unless a target takes them; "report" lets them '
            "through to upstreams and lists who sends what, for those who migrate."
        ),
    ] = "enforce"
    trusted_proxies: Annotated[
        tuple[TrustedProxy, ...],
        about(
            "Proxies in front, whose `X-Forwarded-For` (or `Forwarded`) is believed: the log then names the client. "
            '"unix" is whoever connects to `uds`.'
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[Word, ...],
        about("Origins of the web pages that may call this server, such as `https://app.example`; `*` is any."),
    ] = ()
    drain_seconds: Annotated[
        Seconds, about("How long running requests may go on after SIGTERM or Ctrl-C. A second signal ends at once.")
    ] = 30.0
    max_body_bytes: Annotated[
        int, Meta(ge=KIB, le=1024 * MIB), about("Size of a request's body, images included. Above it the reply is 413.")
    ] = 32 * MIB
    max_header_bytes: Annotated[
        int, Meta(ge=KIB, le=MIB), about("Size of a request's first line and headers together.")
    ] = 64 * KIB
    header_seconds: Annotated[PositiveSeconds, about("Time a client has to send a request's headers.")] = 10.0
    body_seconds: Annotated[PositiveSeconds, about("Time a client has to send a request's body.")] = 60.0
    idle_seconds: Annotated[
        PositiveSeconds, about("How long a connection without a request stays open (keep-alive).")
    ] = 75.0
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000), about("Open connections. One more is answered with 503 and closed.")
    ] = 1000
    max_json_depth: Annotated[
        int,
        Meta(ge=8, le=512),
        about("How deep a JSON schema in a request may nest. Everything else has the depth that the API gives it."),
    ] = 64
    max_messages: Annotated[int, Meta(ge=1, le=1_000_000), about("Messages in one request.")] = 4096
    stream_commit_after: Annotated[
        Seconds,
        about(
            "Seconds without a first token after which a stream's head is sent, so that proxies go on waiting. "
            "Up to then a failure is an ordinary HTTP error."
        ),
    ] = 20.0
    keepalive_seconds: Annotated[
        PositiveSeconds, about("Seconds of silence after which a stream sends a comment, which clients skip.")
    ] = 15.0


class StoreConfig(Settings, frozen=True):
    """Where keys and stored completions are kept."""

    url: Annotated[
        StoreUrl | None, about("The database. Not set: the SQLite file `chatport.db` in `CHATPORT_HOME`.")
    ] = None
    durability: Annotated[
        Literal["process", "power"],
        about('What a confirmed write outlives: "process" a killed server, "power" a power cut too, but is slower.'),
    ] = "process"


class LedgerConfig(Settings, frozen=True):
    """The account of every request: how it is held, for how long it is kept, what is kept with it."""

    slice_tokens: Annotated[
        int,
        Meta(ge=16, le=1_000_000),
        about("Output that is held at a time, for each choice of an answer; more is held while the answer runs."),
    ] = 512
    budget_wait: Annotated[
        Seconds,
        about(
            "Seconds that a request waits for room in a budget that other requests' holds take. Then it is answered "
            "with 429."
        ),
    ] = 5.0
    checkpoint_tokens: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        about("Tokens of output after which it is noted how far an answer is, for the case that the server is killed."),
    ] = 64
    checkpoint_seconds: Annotated[PositiveSeconds, about("The same, by the clock.")] = 1.0
    lease_seconds: Annotated[
        Annotated[float, Meta(ge=1, le=3600)],
        about("A server that was not seen in the database for so long is dead: others settle what it has held."),
    ] = 30.0
    keep_days: Annotated[
        Annotated[int, Meta(ge=1, le=36_500)] | None,
        about("Days that the record of each request is kept. Sums by hour, and balances, stay. Not set: for ever."),
    ] = None
    keep_content: Annotated[
        Switch, about("Keep what was asked and answered with each request, unless its key says otherwise.")
    ] = False
    content_days: Annotated[int, Meta(ge=1, le=36_500), about("Days that it is kept.")] = 30
    currency: Annotated[
        Annotated[str, matching(r"^[A-Z]{3}\Z", "three capital letters, such as USD or CNY")],
        about("The currency that amounts are shown in. They are kept in US dollars."),
    ] = "USD"
    currency_rate: Annotated[Annotated[float, Meta(gt=0, le=1e9)], about("What one US dollar is in that currency.")] = (
        1.0
    )


class OnDemandConfig(Settings, frozen=True):
    """Model files in `CHATPORT_HOME/models` that no model's `path` names: loaded when a request asks for one."""

    enabled: Annotated[Switch, about("Whether they are served, each under its name. Windows can't.")] = True
    idle_seconds: Annotated[PositiveSeconds, about("How long a model stays loaded that nobody asks for.")] = 600.0
    max_loaded: Annotated[
        int,
        Meta(ge=1, le=1000),
        about("Models loaded at the same time. One more takes the place of the one that was used least recently."),
    ] = 3
    max_memory_bytes: Annotated[
        Annotated[int, Meta(ge=MIB, le=1 << 50)] | None,
        about(
            "Memory of all of them together: weights, windows, engines, as far as their files tell. "
            "Not set: three quarters of what the machine has."
        ),
    ] = None
    wait_seconds: Annotated[
        Seconds, about("How long a request waits while every place is in use. Then it is answered with 503.")
    ] = 30.0
    load_seconds: Annotated[
        PositiveSeconds, about("How long a model may take to load. Then it is given up and the requests get a 503.")
    ] = 120.0
    context: Annotated[
        int,
        Meta(ge=256, le=16_777_216),
        about("Tokens in the context window, or as many as the model was made for if that is less."),
    ] = 8192
    slots: Annotated[
        int, Meta(ge=1, le=256), about("Answers that a model generates at the same time. They share its window.")
    ] = 4
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        about("Threads that compute for one model. Not set: one for each core."),
    ] = None
    gpu_layers: Annotated[
        Annotated[int, Meta(ge=0, le=10_000)] | Literal["auto"],
        about('Layers that are computed on the GPU. "auto": as many as fit; 0: none.'),
    ] = "auto"


class LlamaModel(Settings, tag="llama", tag_field="backend", frozen=True):
    """A model that runs inside the process, from a GGUF file."""

    id: Annotated[Name, about("The model's name in requests and replies.")]
    path: Annotated[
        ModelPath,
        about(
            "The weights. A file's path may be relative to the folder of the configuration file. A file of a hub that "
            "was pulled is named `owner/repo/file`."
        ),
    ]
    aliases: Annotated[
        tuple[Name, ...], about("Further names that requests may use. The reply's `model` is the id all the same.")
    ] = ()
    slots: Annotated[
        int, Meta(ge=1, le=256), about("Answers that are generated at the same time. They share the context window.")
    ] = 4
    context: Annotated[
        Annotated[int, Meta(ge=256, le=16_777_216)] | None,
        about("Tokens in the context window. Not set: as many as the model was made for."),
    ] = None
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None, about("Threads that compute. Not set: one for each core.")
    ] = None
    queue: Annotated[
        int, Meta(ge=0, le=100_000), about("Requests that may wait for a slot. One more is answered with 503.")
    ] = 64
    system_prompt: Annotated[
        Word | None,
        about("Used where a request has no system message. Not set: whatever the model's own template says."),
    ] = None
    chat_template: Annotated[
        Word | None,
        about(
            "A file with the model's chat template (Jinja), where the one in its weights is missing or wrong. May be "
            "relative to the folder of the configuration file."
        ),
    ] = None
    tool_format: Annotated[
        Literal["auto", "hermes", "llama3", "mistral", "chatport"],
        about(
            'How the model writes calls of tools. "auto": as its chat template shows; "chatport": as the prompt then '
            "explains to it, for models that were not trained for tools."
        ),
    ] = "auto"
    gpu_layers: Annotated[
        Annotated[int, Meta(ge=0, le=10_000)] | Literal["auto"],
        about('Layers that are computed on the GPU. "auto": as many as fit; 0: none.'),
    ] = "auto"
    default_max_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=16_777_216)] | None,
        about(
            "Tokens of output where the request sets no limit. Not set: what the prompt leaves of a slot's share of "
            "the window (`context` / `slots`), and half of that share at least."
        ),
    ] = None
    price: Annotated[
        PriceConfig | None,
        about("What it costs. Not set: nothing."),
        Meta(extra={"allowed": "a table of its own, [models.price]"}),
    ] = None
    price_model: Annotated[ListedModel | None, about("The entry of an imported list of prices that its price is.")] = (
        None
    )
    owned_by: Annotated[Name, about("What the list of models says as `owned_by`.")] = "chatport"


class ScriptedModel(Settings, tag="scripted", tag_field="backend", frozen=True):
    """A model that says what it is told: for tests, load tests and dry runs."""

    id: Annotated[Name, about("The model's name in requests and replies.")]
    aliases: Annotated[
        tuple[Name, ...], about("Further names that requests may use. The reply's `model` is the id all the same.")
    ] = ()
    reply: Annotated[
        tuple[str, ...] | None,
        about("The pieces of every answer. Not set: it echoes the last user message."),
    ] = None
    delay_ms: Annotated[int, Meta(ge=0, le=600_000), about("Milliseconds to wait before each piece.")] = 0
    fail_status: Annotated[
        Annotated[int, Meta(ge=400, le=599)] | None, about("Fail every request as an upstream with this status would.")
    ] = None
    price: Annotated[
        PriceConfig | None,
        about("What it costs. Not set: nothing."),
        Meta(extra={"allowed": "a table of its own, [models.price]"}),
    ] = None
    price_model: Annotated[ListedModel | None, about("The entry of an imported list of prices that its price is.")] = (
        None
    )
    owned_by: Annotated[Name, about("What the list of models says as `owned_by`.")] = "chatport"


ModelConfig = LlamaModel | ScriptedModel | RoutedModel
ChosenBy = Literal["nobody", "file", "flag"]


DEFAULT_ALIASES = ("gpt-4", "gpt-3.5-turbo")
"""Names that every example of the API uses: a server without a configuration file must answer to them."""

DEFAULT_MODEL = LlamaModel(
    id="smollm2-135m",
    path="smollm2-135m",
    aliases=DEFAULT_ALIASES,
    slots=4,
    # With the prompt of its own template the model does not know the capital of France; with this one it does.
    system_prompt="You are a helpful assistant.",
    # So small a model rambles: without a limit an answer may fill the whole window.
    default_max_tokens=512,
)
"""What is served when neither a file nor a flag names a model."""


FLAG_CONTEXT = 16_384
"""Tokens in the window of a model that `--model` names, or as many as it was made for if that is less.

The window takes memory from the start: 2.4 GB for so many tokens of Qwen3 4B or 8B, 19 GB for the 131,072 that models
of this size may be made for. A file that configures the model may ask for them.
"""


class Config(Struct, frozen=True, kw_only=True):
    """All that is set, with defaults filled in. Only the runtime, with its parts, and the CLI read it;
    all others get plain values."""

    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    ledger: LedgerConfig = LedgerConfig()
    on_demand: OnDemandConfig = OnDemandConfig()
    models: tuple[ModelConfig, ...] = (DEFAULT_MODEL,)
    limits: tuple[LimitConfig, ...] = ()
    home: Path
    """The folder of the database and the models; absolute."""
    source: Path | None = None
    """The file that was read, None without one."""
    chosen_by: ChosenBy = "nobody"
    """Who chose the models; `nobody`: they are the default one."""

    @property
    def store_url(self) -> str:
        """The database's URL, the default filled in."""
        return self.store.url or f"sqlite:///{self.home / 'chatport.db'}"

    @property
    def models_folder(self) -> Path:
        """Where pulled models are kept."""
        return self.home / "models"
