"""What every request of a chat asks for beside its messages."""

from __future__ import annotations

from msgspec import Struct

from chatport.wire.chat import ChatRequest, Message, StreamOptions


class Settings(Struct, frozen=True, kw_only=True):
    """The options of the command; None leaves a choice to the server."""

    temperature: float | None = None
    max_tokens: int | None = None
    stream: bool = True


def request_for(model: str, messages: list[Message], settings: Settings) -> ChatRequest:
    """The request whose answer goes on with these messages."""
    return ChatRequest(
        model=model,
        messages=messages,
        temperature=settings.temperature,
        max_completion_tokens=settings.max_tokens,
        stream=True if settings.stream else None,
        stream_options=StreamOptions(include_usage=True) if settings.stream else None,
    )
