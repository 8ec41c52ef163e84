"""The command line: `serve`, `chat`, `models`, `keys`, `config`.

Each command imports what it needs when it runs, so that help and version come at once.
"""

from chatport.cli.app import main

__all__ = ["main"]
