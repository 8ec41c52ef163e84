"""The command and its options. The rest is imported when it runs: `--help` need not wait for it."""

from __future__ import annotations

from typing import Annotated

import typer

from chatport.cli.endings import Ending, end, store_told, told
from chatport.cli.options import ConfigOption


def chat(  # noqa: PLR0913, PLR0917  one parameter an option
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Who answers. Default: the server's first model.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            metavar="URL",
            help="Another server of the API, such as https://host/v1. Its key is read from CHATPORT_API_KEY or "
            "OPENAI_API_KEY. Default: the server on this machine, with a key made for this chat.",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the server on this machine. Default: as configured.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system prompt.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 always takes the likeliest word. Default: the server's.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens that one answer may have. Default: the server's.")
    ] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Show each answer when it is whole.")] = False,
    config: ConfigOption = None,
) -> None:
    """Talks with a model in the terminal; `/help` lists what else can be entered. Ctrl-C stops an answer, Ctrl-D ends.

    Input from a pipe is one message, and only the answer is printed.

    Examples:

    * `chatport chat`
    * `chatport chat gpt-4 --system "Answer in one sentence."`
    * `git diff | chatport chat --system "Write the commit message." > message.txt`
    * `chatport chat --base-url http://gpu-box:8000/v1`
    """
    if base_url is not None and port is not None:
        end(Ending.USAGE, "--port is for the server on this machine. With --base-url, the port is part of the URL.")
    from chatport.cli.chat.request import Settings  # noqa: PLC0415
    from chatport.cli.chat.start import Place, talk  # noqa: PLC0415

    place = Place(base_url=base_url, port=port, config=config)
    settings = Settings(temperature=temperature, max_tokens=max_tokens, stream=not no_stream)
    with told(), store_told():
        talk(place, model, system, settings)
