"""What start-up says, in English and Chinese: where the server is, the first keys, and a line to try it with."""

from __future__ import annotations

import json
from collections.abc import Iterator

from msgspec import Struct

SMALL_MODEL = "smollm2-135m"
"""The model whose answers nobody should take for the program's measure."""
BIGGER_MODEL = "qwen3-4b"
"""The catalogue's model that is shown the way to: it runs on a laptop, in English and in Chinese."""


class KeysMade(Struct, frozen=True, kw_only=True):
    """What this start did about keys. Nothing, as a rule: they were made before."""

    key: str | None = None
    """The first API key, where one was minted just now."""
    admin_key: str | None = None
    registered: tuple[str, ...] = ()
    """The environment's variables whose keys were new."""
    has_admin: bool = True
    """Whether there is an admin key that lets somebody in."""


class Start(Struct, frozen=True, kw_only=True):
    """All that the words depend on."""

    url: str
    """Without a path."""
    models: tuple[tuple[str, ...], ...]
    """Each model's names, its id first."""
    on_demand: tuple[str, ...] = ()
    """Models that are loaded when they are asked for."""
    keys: KeysMade = KeysMade()
    mint: str
    """The command that makes another key."""
    mint_admin: str
    """The same for an admin key."""
    small_model: bool = False
    bigger: str
    """The command that serves a bigger model."""
    replaced_by: str | None = None
    """The configuration file, where its models took the place of the default one."""
    public: bool = False
    """Whether others than this machine can reach the server."""
    uds: str | None = None
    """The Unix socket it listens on instead of an address."""
    proxy: tuple[str, str] | None = None
    """A proxy variable that would catch requests to us, and the line against it."""


def welcome(start: Start) -> str:
    """The whole text. Nothing in it is wrapped: its commands are there to be pasted."""
    parts = (_where(start), _keys(start), _setting(start), _trying(start), *_remarks(start))
    return "\n\n".join(parts)


def _where(start: Start) -> str:
    names = ", ".join(names[0] + (f" (= {', '.join(names[1:])})" if names[1:] else "") for names in start.models)
    more = f"\n  loaded when asked for 按需加载  {', '.join(start.on_demand)}" if start.on_demand else ""
    return f"Chatport is ready. 服务已就绪。\n  API     {start.url}/v1\n  models  {names}{more}"


def _keys(start: Start) -> str:
    made = start.keys
    if made.key is None:
        return "\n".join(_known_keys(start))
    lines = ["First keys, shown only this once; just their hashes are stored. 首批密钥，仅显示这一次，请立即保存："]
    lines.append(f"  API key    密钥        {made.key}")
    if made.admin_key is not None:
        lines.append(f"  admin key  管理员密钥  {made.admin_key}")
    return "\n".join(lines)


def _known_keys(start: Start) -> Iterator[str]:
    if names := " and ".join(start.keys.registered):
        yield f"Registered from {names}; only hashes are stored. 已登记环境变量中的密钥，需要新密钥请运行："
    else:
        yield "Keys were made before and are stored only as hashes. 密钥已存在，需要新密钥请运行："
    yield f"  {start.mint}"
    if not start.keys.has_admin:
        yield "There is no admin key. To make one, run: 尚无可用的管理员密钥，需要时请运行："
        yield f"  {start.mint_admin}"


def _setting(start: Start) -> str:
    return (
        "The SDKs read address and key from here. SDK 从这两个环境变量读取地址和密钥：\n"
        f"  export OPENAI_BASE_URL={start.url}/v1\n"
        f"  export OPENAI_API_KEY={start.keys.key or 'sk-cp-...'}"
    )


def _trying(start: Start) -> str:
    question = {"role": "user", "content": "What is the capital of France?"}
    body = json.dumps({"model": start.models[0][0], "temperature": 0, "messages": [question]})
    return (
        "Try it. 试一试：\n"
        f"  curl {start.url}/v1/chat/completions -H 'Content-Type: application/json' "
        f'-H "Authorization: Bearer {start.keys.key or "$OPENAI_API_KEY"}" -d {_quoted(body)}'
    )


def _quoted(body: str) -> str:
    return "'" + body.replace("'", "'\\''") + "'"


def _remarks(start: Start) -> Iterator[str]:
    if start.uds is not None:
        yield (
            f"It listens on the Unix socket {start.uds}, and on no port: curl --unix-socket {start.uds} …\n"
            f"仅监听 Unix 套接字 {start.uds}，不监听端口。"
        )
    if start.small_model:
        yield (
            f"{SMALL_MODEL} proves that everything works. It is too small for good answers, and of no use in Chinese. "
            f"For real answers serve a bigger model, which is fetched once (2.5 GB):\n  {start.bigger}\n"
            f"{SMALL_MODEL} 仅用于验证服务可用：模型太小，回答质量差，不会中文。"
            "要得到真正可用的回答，请用上面的命令换用更大的模型（首次运行时下载，约 2.5 GB）。"
        )
    if start.replaced_by is not None:
        yield (
            f"The models of {start.replaced_by} are served instead of the default one. "
            f"默认模型已被该配置文件中的模型取代。"
        )
    if start.public:
        yield (
            "This address can be reached from other machines, without encryption. "
            "其他机器可以访问此地址，且未加密；请放在支持 HTTPS 的反向代理之后。\n"
            "  Put it behind a proxy that speaks HTTPS."
        )
    if start.proxy is not None:
        variable, line = start.proxy
        yield (
            f"{variable} is set: clients would send requests for this address to that proxy. Where they run, set:\n"
            f"  {line}\n"
            f"检测到代理变量 {variable}，客户端对本机的请求会被代理拦截；请在客户端所在终端执行上面这一行。"
        )
