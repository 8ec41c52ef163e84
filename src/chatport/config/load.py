"""File, environment and flags to one Config; every fault of the file is told at once, in the file's order."""

from __future__ import annotations

import difflib
import ipaddress
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, cast, get_type_hints

import msgspec
import platformdirs
from msgspec import inspect

from chatport.config.allowed import allowed, is_secret
from chatport.config.faults import ConfigError, Fault, quote
from chatport.config.limits import AMOUNTS, LimitConfig
from chatport.config.pricing import REQUEST_DIGITS, TOKEN_DIGITS, PriceConfig, scaled
from chatport.config.schema import (
    DEFAULT_ALIASES,
    DEFAULT_MODEL,
    FLAG_CONTEXT,
    ChosenBy,
    Config,
    LedgerConfig,
    LlamaModel,
    ModelConfig,
    OnDemandConfig,
    ScriptedModel,
    ServerConfig,
    StoreConfig,
)
from chatport.config.source import KeyPath, Source, Substituted, read, spelled
from chatport.config.terms import PROXY_WORDS, Settings
from chatport.config.upstreams import RoutedModel, UpstreamTarget
from chatport.providers import PROVIDERS, Quirk

Table = TypeVar("Table", bound=Settings)

BACKENDS: dict[str, type[LlamaModel] | type[ScriptedModel]] = {"llama": LlamaModel, "scripted": ScriptedModel}
TABLES = ("server", "store", "ledger", "on_demand", "models", "limits")


class Flags(TypedDict, total=False):
    """What the command line may say; None is not said."""

    host: str | None
    port: int | None
    log_level: str | None
    model: str | None
    """A name or a .gguf file, served instead of all configured models."""


def load(path: Path | None, environ: Mapping[str, str], **flags: Unpack[Flags]) -> Config:
    """The configuration in force. A flag wins over the file, the file over the defaults.

    `path`: the file; without it the one that CHATPORT_CONFIG names, or none. `environ`: for CHATPORT_HOME and for
    `${VARIABLES}` in the file. Raises ConfigError.
    """
    if path is None and (named := environ.get("CHATPORT_CONFIG")):
        path = Path(named).expanduser()
    wanted = flags.pop("model", None)
    reader = _Reader(read(path, environ), environ)
    server = reader.table(ServerConfig, "server", {key: value for key, value in flags.items() if value is not None})
    server = reader.checked_server(server)
    store = reader.table(StoreConfig, "store", {})
    ledger = reader.table(LedgerConfig, "ledger", {})
    on_demand = reader.table(OnDemandConfig, "on_demand", {})
    models, chosen_by = reader.models()
    limits = reader.limits()
    reader.raise_faults()
    if wanted is not None:
        models, chosen_by = (model_of(wanted),), "flag"
    home = home_of(environ)
    return Config(
        server=server,
        store=store,
        ledger=ledger,
        on_demand=on_demand,
        models=models,
        limits=limits,
        home=home,
        source=path,
        chosen_by=chosen_by,
    )


def home_of(environ: Mapping[str, str]) -> Path:
    """CHATPORT_HOME, or the platform's folder for a user's data; absolute, perhaps not there yet."""
    if named := environ.get("CHATPORT_HOME"):
        return Path(named).expanduser().absolute()
    return platformdirs.user_data_path("chatport", appauthor=False)


def model_of(wanted: str) -> LlamaModel:
    """The one model that `--model` asks for. It answers to the examples' model names too."""
    if wanted == DEFAULT_MODEL.path:
        return DEFAULT_MODEL
    path = _file_from(Path(), wanted)
    called = path if path == wanted and not Path(path).is_absolute() else Path(wanted).name
    name = "-".join(called.removesuffix(".gguf").split())[:128]
    if not name:
        raise ConfigError(
            Fault(key="--model", sentence=f"{quote(wanted)} names no model; give a name or a .gguf file.")
        )
    aliases = tuple(alias for alias in DEFAULT_ALIASES if alias != name)
    return LlamaModel(id=name, path=path, aliases=aliases, context=FLAG_CONTEXT)


def _absolute(folder: Path, path: str) -> str:
    return str((folder / Path(path).expanduser()).absolute())


def _file_from(folder: Path, path: str) -> str:
    """A file's path made absolute; a name stays what it is: the catalogue's, or owner/repo/file where no file is so."""
    named = Path(path).expanduser()
    if named.suffix != ".gguf" and named.name == path:
        return path
    file = _absolute(folder, path)
    of_a_hub = path.count("/") > 1 and path[0] not in "./~"
    return path if of_a_hub and not Path(file).is_file() else file


class _Reader:
    """Turns a source into settings and collects what is wrong with it."""

    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._faults: list[Fault] = []
        for name in source.values.keys() - set(TABLES):
            self._blame((name,), _unknown(name, TABLES))

    def raise_faults(self) -> None:
        """Raises ConfigError when there are any, in the order of the file."""
        if self._faults:
            raise ConfigError(*sorted(self._faults, key=lambda fault: fault.line or 0))

    def table(self, kind: type[Table], name: str, flags: dict[str, Any]) -> Table:
        """A table that is there once, all of it optional, under the flags that win over it."""
        found = self._source.values.get(name, {})
        if not isinstance(found, dict):
            self._blame((name,), f"{quote(found)} is not allowed here; write a table, [{name}].")
            found = {}
        settings = self._settings(kind, found, (name,))
        settings |= {key: value for key, value in flags.items() if self._flag(kind, key, value)}
        return kind(**settings)

    def checked_server(self, server: ServerConfig) -> ServerConfig:
        """The server's settings with its files' paths made absolute; a certificate that can't be used is blamed."""
        self._refuse_odd_proxies(server.trusted_proxies)
        folder = Path() if self._source.file is None else self._source.file.parent
        paths = {name: getattr(server, name) for name in ("uds", "tls_cert", "tls_key")}
        server = msgspec.structs.replace(
            server, **{name: str((folder / path).expanduser().absolute()) for name, path in paths.items() if path}
        )
        if server.tls_cert is None:
            if server.tls_key is not None:
                self._blame(("server", "tls_key"), "is of no use without a tls_cert.")
            return server
        import ssl  # noqa: PLC0415  ten milliseconds that only HTTPS needs

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(server.tls_cert, server.tls_key)
        except OSError as error:  # an SSLError is one, too
            reason = error.strerror or "the files are no certificate and its key"
            self._blame(("server", "tls_cert"), f"can't be used, with or without a tls_key: {reason}.")
        return server

    def models(self) -> tuple[tuple[ModelConfig, ...], ChosenBy]:
        """`[[models]]`; without any, the default one."""
        if "models" not in self._source.values:
            return (DEFAULT_MODEL,), "nobody"
        entries = self._source.values["models"]
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            self._blame(("models",), "each model is a table of its own, [[models]], and there is at least one.")
            return (), "file"
        paths: list[KeyPath] = [("models", index) for index in range(len(entries))]
        models = [
            (index, self._model(self._priced(entry, path), path))
            for index, (entry, path) in enumerate(zip(entries, paths, strict=True))
        ]
        whole = [(index, model) for index, model in models if model is not None]
        self._refuse_double_names(whole)
        self._refuse_lost_fallbacks(whole)
        return tuple(model for _, model in whole), "file"

    def limits(self) -> tuple[LimitConfig, ...]:
        """`[[limits]]`, one for each scope."""
        entries = self._source.values.get("limits", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._blame(("limits",), "each limit is a table of its own, [[limits]].")
            return ()
        limits: dict[str, LimitConfig] = {}
        for index, entry in enumerate(entries):
            path: KeyPath = ("limits", index)
            settings = self._whole(LimitConfig, entry, path)
            if settings is None:
                continue
            limit = LimitConfig(**settings)
            if limit.scope in limits:
                self._blame((*path, "scope"), f"{quote(limit.scope)} has a table already; write its limits there.")
            elif not limit.amounts:
                self._blame(path, f"limits nothing; give at least one of {', '.join(AMOUNTS)}.")
            limits[limit.scope] = limit
        return tuple(limits.values())

    def _priced(self, entry: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """The entry with its price as a whole; without one that is wrong, which is told."""
        if "price" not in entry:
            return entry
        found, path = entry["price"], (*path, "price")
        rest = {key: value for key, value in entry.items() if key != "price"}
        if not isinstance(found, dict):
            self._blame(path, f"{_shown(found)} is not allowed here; write a table, [models.price].")
            return rest
        known = len(self._faults)
        settings = self._settings(PriceConfig, found, path)
        self._require(PriceConfig, found, path)
        for name, usd in settings.items():
            try:
                scaled(usd, REQUEST_DIGITS if name == "request" else TOKEN_DIGITS)
            except ValueError:
                self._blame((*path, name), _refused(PriceConfig, name, found[name]))
        return {**rest, "price": PriceConfig(**settings)} if len(self._faults) == known else rest

    def _model(self, entry: dict[str, Any], path: KeyPath) -> ModelConfig | None:
        if "targets" in entry:
            return self._routed(entry, path)
        backend = entry.get("backend")
        kind = BACKENDS.get(backend) if isinstance(backend, str) else None
        if kind is None:
            options = " or ".join(quote(name) for name in BACKENDS)
            given = f"{_shown(backend)} is no backend" if "backend" in entry else "is missing"
            hint = "A model that is somewhere else has [[models.targets]] instead."
            self._blame((*path, "backend"), f"{given}; allowed: {options}. {hint}")
            return None
        settings = self._whole(kind, {key: value for key, value in entry.items() if key != "backend"}, path)
        if settings is None:
            return None
        if kind is LlamaModel and self._source.file is not None:
            settings["path"] = _file_from(self._source.file.absolute().parent, settings["path"])
            if settings.get("chat_template"):
                settings["chat_template"] = _absolute(self._source.file.absolute().parent, settings["chat_template"])
        return kind(**settings)

    def _routed(self, entry: dict[str, Any], path: KeyPath) -> RoutedModel | None:
        """A model with targets. Everything wrong with it and them is told."""
        entries = entry["targets"]
        if not isinstance(entries, list) or not entries or not all(isinstance(one, dict) for one in entries):
            self._blame((*path, "targets"), "each target is a table of its own, [[models.targets]].")
            return None
        targets = [self._target(one, (*path, "targets", index)) for index, one in enumerate(entries)]
        settings = self._whole(RoutedModel, {**entry, "targets": []}, path)
        whole = tuple(target for target in targets if target is not None)
        if settings is None or len(whole) < len(targets):
            return None
        model = RoutedModel(**{**settings, "targets": whole})
        self._refuse_odd_wildcard(model, path)
        return model

    def _target(self, entry: dict[str, Any], path: KeyPath) -> UpstreamTarget | None:
        """A target, with what its provider's row and the environment add."""
        settings = self._whole(UpstreamTarget, entry, path)
        if settings is None:
            return None
        if "ca_file" in settings and self._source.file is not None:
            settings["ca_file"] = str(self._source.file.absolute().parent / Path(settings["ca_file"]).expanduser())
        target = UpstreamTarget(**settings)
        if target.provider is None:
            if target.backend is None or target.base_url is None:
                self._blame(path, 'is nowhere: give a provider, or backend = "openai" and a base_url.')
                return None
            return target
        provider = PROVIDERS[target.provider]
        base_url = target.base_url or provider.base_url
        if base_url is None:
            self._blame((*path, "base_url"), f"is missing; {quote(target.provider)} has one for each account.")
            return None
        key = target.api_key or (provider.key_env and self._environ.get(provider.key_env)) or None
        if key is None and not target.api_keys and Quirk.NO_KEY not in provider.quirks:
            self._blame((*path, "api_key"), f"is missing; set it, or the environment variable {provider.key_env}.")
            return None
        return msgspec.structs.replace(target, base_url=base_url, api_key=key)

    def _whole(self, kind: type[Settings], entry: dict[str, Any], path: KeyPath) -> dict[str, Any] | None:
        """The settings of a table that must be good as a whole; None where something was wrong with it."""
        known = len(self._faults)
        settings = self._settings(kind, entry, path)
        self._require(kind, entry, path)
        return settings if len(self._faults) == known else None

    def _require(self, kind: type[Settings], entry: dict[str, Any], path: KeyPath) -> None:
        """Blames what must be there and is not."""
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in entry:
                self._blame((*path, field.name), f"is missing; allowed: {allowed(_described(kind, field.name))}.")

    def _settings(self, kind: type[Settings], found: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """The keys of a table that are known and good; the others are blamed."""
        types = get_type_hints(kind, include_extras=True)
        settings: dict[str, Any] = {}
        for key, value in found.items():
            if key not in types:
                self._blame((*path, key), _unknown(key, tuple(types)))
                continue
            try:
                settings[key] = _converted(value, types[key])
            except msgspec.ValidationError:
                self._blame((*path, key), _refused(kind, key, value))
        return settings

    def _flag(self, kind: type[Settings], key: str, value: Any) -> bool:
        try:
            msgspec.convert(value, get_type_hints(kind, include_extras=True)[key])
        except msgspec.ValidationError:
            self._faults.append(Fault(key=f"--{key.replace('_', '-')}", sentence=_refused(kind, key, value)))
            return False
        return True

    def _refuse_odd_proxies(self, entries: tuple[str, ...]) -> None:
        for index, entry in enumerate(entries):
            if entry != "unix" and not _is_network(entry):
                given = _shown(self._source.values["server"]["trusted_proxies"][index])
                path: KeyPath = ("server", "trusted_proxies", index)
                self._blame(path, f"{given} is not allowed; allowed: {PROXY_WORDS}.")

    def _refuse_double_names(self, models: list[tuple[int, ModelConfig]]) -> None:
        taken: dict[str, KeyPath] = {}
        for index, model in models:
            for key, names in (("id", (model.id,)), ("aliases", model.aliases)):
                path: KeyPath = ("models", index, key)
                for name in names:
                    if name in taken:
                        self._blame(path, f"the name {quote(name)} is already given by {spelled(taken[name])}.")
                    taken.setdefault(name, path)

    def _refuse_odd_wildcard(self, model: RoutedModel, path: KeyPath) -> None:
        """`NAME/*` is a name's only `*`, and leaves the names of its models to its target."""
        if "*" in model.id.removesuffix("/*") or model.id == "/*":
            self._blame((*path, "id"), f"{quote(model.id)} is not allowed; a `*` stands only at the end: NAME/*.")
        for index, target in enumerate(model.targets if model.passes_all else ()):
            if target.model is not None:
                where = (*path, "targets", index, "model")
                self._blame(where, f"can't be given: {quote(model.id)} passes on whatever model is asked for.")
        if model.passes_all and model.price_model is not None:
            self._blame((*path, "price_model"), f"can't be given: {quote(model.id)} stands for many models.")
        if model.passes_all and model.aliases:
            self._blame((*path, "aliases"), f"can't be given: {quote(model.id)} stands for many models.")

    def _refuse_lost_fallbacks(self, models: list[tuple[int, ModelConfig]]) -> None:
        ids = {model.id for _, model in models if not model.id.endswith("/*")}
        for index, model in models:
            for name in model.fallbacks if isinstance(model, RoutedModel) else ():
                if name not in ids - {model.id}:
                    others = ", ".join(sorted(ids - {model.id})) or "none"
                    self._blame(
                        ("models", index, "fallbacks"), f"{quote(name)} is no other model's id; there are: {others}."
                    )

    def _blame(self, path: KeyPath, sentence: str) -> None:
        self._faults.append(self._source.fault(path, sentence))


def _converted(value: Any, kind: Any) -> Any:
    """The value in its type. What a variable filled in is text, and may be meant as a number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError("not a finite number")
    if isinstance(value, Substituted):
        return msgspec.convert(str(value), kind, strict=False)
    return msgspec.convert(_plain(value), kind)


def _plain(value: Any) -> Any:
    """The value without the memory of what was filled in."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Substituted) else value


def _is_network(entry: str) -> bool:
    """Whether it is an address or a network; one whose address has more bits than its mask is neither."""
    try:
        ipaddress.ip_network(entry)
    except ValueError:
        return False
    return True


def _refused(kind: type[Settings], key: str, value: Any) -> str:
    described = _described(kind, key)
    given = "the value" if is_secret(described) else _shown(value)
    return f"{given} is not allowed; allowed: {allowed(described)}."


def _shown(value: Any) -> str:
    """A value for a message: as the file wrote it, never what a variable of the environment held."""
    if isinstance(value, list):
        return quote([item.written if isinstance(item, Substituted) else item for item in value])
    return quote(value.written if isinstance(value, Substituted) else value)


def _described(kind: type[Settings], key: str) -> inspect.Type:
    described = cast("inspect.StructType", inspect.type_info(kind))
    return next(field.type for field in described.fields if field.name == key)


def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {quote(near[0])}?" if near else f"allowed: {', '.join(sorted(known))}."
    return f"there is no such key; {hint}"
