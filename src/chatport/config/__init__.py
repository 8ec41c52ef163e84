"""Configuration: one TOML file, the environment and the command's flags, read into one frozen `Config`.

`schema.py` says what can be set, what each key means and what is allowed: validation, `docs/configuration.md` and the
sentences of errors are all made from it. `load.py` reads; `source.py` knows where in the file a key stands.
"""

from chatport.config.faults import ConfigError, Fault
from chatport.config.limits import LimitConfig
from chatport.config.load import home_of, load
from chatport.config.pricing import PriceConfig
from chatport.config.schema import (
    DEFAULT_ALIASES,
    DEFAULT_MODEL,
    Config,
    LedgerConfig,
    LlamaModel,
    ModelConfig,
    OnDemandConfig,
    ScriptedModel,
    ServerConfig,
    StoreConfig,
)
from chatport.config.upstreams import RoutedModel, UpstreamTarget

__all__ = [
    "DEFAULT_ALIASES",
    "DEFAULT_MODEL",
    "Config",
    "ConfigError",
    "Fault",
    "LedgerConfig",
    "LimitConfig",
    "LlamaModel",
    "ModelConfig",
    "OnDemandConfig",
    "PriceConfig",
    "RoutedModel",
    "ScriptedModel",
    "ServerConfig",
    "StoreConfig",
    "UpstreamTarget",
    "home_of",
    "load",
]
