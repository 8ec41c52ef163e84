"""From the configuration of a model that is somewhere else to its targets, and a backend for each.

Of several keys each makes a target of its own: what is learnt of one, its cool-down above all, says nothing of others.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from chatport.backends.base import Backend
from chatport.backends.http.connection import Timeouts
from chatport.backends.http.dial import Origin
from chatport.backends.http.pool import Pools
from chatport.backends.http.proxies import proxy_for
from chatport.backends.openai import OpenAIBackend, OpenAISettings
from chatport.config import ConfigError, Fault, RoutedModel, UpstreamTarget
from chatport.policy.catalog import ANY, Model
from chatport.providers import PRICED_AS, PROVIDERS
from chatport.targets import EVERY_FEATURE, Target
from chatport.wire.errors import ApiError

PORTS = {"http": 80, "https": 443}

MOST_NAMED = 10
"""Models of an upstream that a sentence lists."""


def open_upstreams(
    entry: RoutedModel, created: int, pools: Pools, environ: Mapping[str, str]
) -> tuple[Model, dict[str, Backend]]:
    """The model, and its targets' backends by their names. Opens no connection yet. Raises ConfigError."""
    targets: list[Target] = []
    backends: dict[str, Backend] = {}
    for name, upstream, key in _places(entry):
        target = _target(entry, upstream, name)
        targets.append(target)
        backends[target.backend] = _backend(upstream, key, pools, environ)
    model = Model(
        id=entry.id,
        aliases=entry.aliases,
        targets=tuple(targets),
        created=created,
        owned_by=entry.owned_by,
        capabilities=tuple(sorted(frozenset.union(*(target.features for target in targets)))),
        fallbacks=entry.fallbacks,
        attempts=entry.attempts,
        deadline=entry.deadline_seconds,
    )
    return model, backends


async def probed(entry: RoutedModel, environ: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Each target of a model and why it could not answer, None where it could: it is asked for its list of models,
    which tells whether it is there, takes our key and has the model."""
    pools = Pools()
    try:
        model, backends = open_upstreams(entry, 0, pools, environ)
        return await asyncio.gather(*(_probe(target, backends[target.backend]) for target in model.targets))
    finally:
        pools.close()


async def _probe(target: Target, backend: Backend) -> tuple[str, str | None]:
    try:
        listed = await backend.models(target)
    except ApiError as error:
        return target.id, error.message
    if target.model in listed or target.model.endswith(ANY):
        return target.id, None
    names = f"{len(listed)} others" if len(listed) > MOST_NAMED else ", ".join(listed) or "none"
    return target.id, f"It has no model {target.model}, but {names}."


def _places(entry: RoutedModel) -> Iterator[tuple[str, UpstreamTarget, str | None]]:
    """Each target with each of its keys, under a name that no other has."""
    taken: Counter[str] = Counter()
    for upstream in entry.targets:
        name = upstream.name or upstream.provider or "upstream"
        for key in upstream.keys:
            taken[name] += 1
            yield name if taken[name] == 1 else f"{name}-{taken[name]}", upstream, key


def _target(entry: RoutedModel, upstream: UpstreamTarget, name: str) -> Target:
    model = upstream.model or entry.id
    described = f"{upstream.base_url} {model} {name}"
    return Target(
        id=name,
        backend=f"{entry.id} {name}",
        model=model,
        features=EVERY_FEATURE - frozenset(upstream.lacks),
        fingerprint="fp_" + hashlib.sha256(described.encode()).hexdigest()[:10],
        extra_params=upstream.extra_params,
        remote=True,
        priority=upstream.priority,
        weight=upstream.weight / len(upstream.keys),
        max_concurrency=upstream.max_concurrency,
        price_list=PRICED_AS.get(upstream.provider or ""),
        price_model=entry.price_model,
    )


def _backend(upstream: UpstreamTarget, key: str | None, pools: Pools, environ: Mapping[str, str]) -> OpenAIBackend:
    base_url = upstream.base_url or ""
    settings = OpenAISettings(
        base_url=base_url,
        api_key=key,
        headers=upstream.extra_headers or {},
        body=upstream.extra_body or {},
        quirks=PROVIDERS[upstream.provider].quirks if upstream.provider else frozenset(),
        timeouts=Timeouts(
            connect=upstream.connect_seconds,
            send=upstream.send_seconds,
            first_byte=upstream.first_byte_seconds,
            between=upstream.silence_seconds,
            total=upstream.total_seconds,
        ),
    )
    return OpenAIBackend(settings, pools.to(_origin(urlsplit(base_url), upstream, environ)))


def _origin(url: SplitResult, upstream: UpstreamTarget, environ: Mapping[str, str]) -> Origin:
    host = url.hostname or ""
    port = url.port or PORTS[url.scheme]
    try:
        proxy = proxy_for(url.scheme, host, port, environ)
    except ValueError as exc:
        raise ConfigError(Fault(key="proxy", sentence=str(exc))) from exc
    ca_file = Path(upstream.ca_file) if upstream.ca_file else None
    return Origin(scheme=url.scheme, host=host, port=port, proxy=proxy, ca_file=ca_file)
