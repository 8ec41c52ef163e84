"""What other rooms are told of the configuration, in their own words."""

from __future__ import annotations

from chatport.config import Config, LedgerConfig, ModelConfig, RoutedModel, ServerConfig
from chatport.policy.ledger import LedgerSettings
from chatport.store.limits import Limit, Rules
from chatport.web.limits import HTTPLimits
from chatport.web.server import ServerSettings
from chatport.web.site import WebSettings
from chatport.wire.decode import DecodeLimits


def web_settings(config: Config) -> WebSettings:
    server = config.server
    return WebSettings(
        max_body_bytes=server.max_body_bytes,
        decode_limits=DecodeLimits(max_depth=server.max_json_depth, max_messages=server.max_messages),
        cors_origins=server.cors_origins,
        trusted_proxies=server.trusted_proxies,
        keep_unknown=server.strict == "report" or any(takes_unknown(model) for model in config.models),
    )


def limits_of(config: Config) -> list[Limit]:
    """The limits that the file sets."""
    limits = []
    for entry in config.limits:
        kind, subject = entry.subject
        limits.append(Limit(kind=kind, subject=subject, rules=Rules(**entry.amounts), mode=entry.mode))
    return limits


def takes_unknown(model: ModelConfig) -> bool:
    """Whether a target of the model takes fields that the contract does not know."""
    return isinstance(model, RoutedModel) and any(target.extra_params != "reject" for target in model.targets)


def server_settings(server: ServerConfig) -> ServerSettings:
    limits = HTTPLimits(
        max_header_bytes=server.max_header_bytes,
        max_body_bytes=server.max_body_bytes,
        header_seconds=server.header_seconds,
        body_seconds=server.body_seconds,
        idle_seconds=server.idle_seconds,
        max_connections=server.max_connections,
    )
    return ServerSettings(
        drain_seconds=server.drain_seconds, limits=limits, tls_cert=server.tls_cert, tls_key=server.tls_key
    )


def ledger_settings(ledger: LedgerConfig) -> LedgerSettings:
    return LedgerSettings(
        slice_tokens=ledger.slice_tokens,
        checkpoint_tokens=ledger.checkpoint_tokens,
        checkpoint_seconds=ledger.checkpoint_seconds,
        budget_wait=ledger.budget_wait,
        lease_seconds=ledger.lease_seconds,
    )
