"""The providers that are known by name: where they are, which variable holds their key, what they do differently.

A row and no code: whoever is not here is a target with `backend = "openai"` and a `base_url`. Sources: each
provider's own documentation of its OpenAI-compatible API, as of November 2026.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Quirk(StrEnum):
    """What a provider does otherwise than OpenAI."""

    OLD_MAX_TOKENS = "old_max_tokens"
    """Knows the output limit as `max_tokens` only."""
    NO_STREAM_OPTIONS = "no_stream_options"
    """Refuses `stream_options`, and says the usage of a stream unasked."""
    NO_KEY = "no_key"
    """Usually runs without a key."""


class Provider(Struct, frozen=True):
    """One row. `base_url`: None where each account has its own."""

    base_url: str | None
    key_env: str | None
    quirks: frozenset[Quirk] = frozenset()


OLD = frozenset({Quirk.OLD_MAX_TOKENS})
LOCAL = frozenset({Quirk.NO_KEY})

PROVIDERS: dict[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    # The v1 API takes the key as a bearer too: https://RESOURCE.openai.azure.com/openai/v1
    "azure": Provider(None, "AZURE_OPENAI_API_KEY"),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", OLD),
    "dashscope": Provider("https://dashscope.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY", OLD),
    "moonshot": Provider("https://api.moonshot.cn/v1", "MOONSHOT_API_KEY", OLD),
    "zhipu": Provider("https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY", OLD),
    "volcengine": Provider("https://ark.cn-beijing.volces.com/api/v3", "ARK_API_KEY", OLD),
    "minimax": Provider("https://api.minimaxi.com/v1", "MINIMAX_API_KEY"),
    "siliconflow": Provider("https://api.siliconflow.cn/v1", "SILICONFLOW_API_KEY", OLD),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY", OLD | {Quirk.NO_STREAM_OPTIONS}),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY", OLD),
    "fireworks": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", OLD),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY"),
    "vllm": Provider("http://127.0.0.1:8000/v1", None, LOCAL),
    "sglang": Provider("http://127.0.0.1:30000/v1", None, LOCAL),
    "llama-server": Provider("http://127.0.0.1:8080/v1", None, LOCAL),
    "ollama": Provider("http://127.0.0.1:11434/v1", None, LOCAL | OLD),
    "lmstudio": Provider("http://127.0.0.1:1234/v1", None, LOCAL | OLD),
}
"""By the name that `provider` gives in the configuration."""

PRICED_AS: dict[str, str] = {
    "openai": "openai",
    "azure": "azure",
    "deepseek": "deepseek",
    "moonshot": "moonshotai",
    "zhipu": "zhipuai",
    "minimax": "minimax",
    "mistral": "mistral",
    "groq": "groq",
    "together": "together",
    "fireworks": "fireworks",
    "openrouter": "openrouter",
    "xai": "x-ai",
}
"""What genai-prices calls those providers whose prices it lists. It has none of the others', November 2026."""
