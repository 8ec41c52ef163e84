"""Chatport: one port for every chat model.

The folder listing is the architecture; `docs/architecture.md` walks through it. Start reading at `pipeline.py`.
"""

__version__ = "0.1.0"
