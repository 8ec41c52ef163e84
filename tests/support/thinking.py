"""The default model made to think: it repeats what it has been shown, under a template that shows it how."""

from __future__ import annotations

from support.gguf_files import CHATML

TEMPLATE = CHATML + "{% if '</think>' in messages[-1].content %}{{ '<think>\n' }}{% endif %}"
"""Shows how the model thinks, and begins the thought where the question asks for one."""

SHOWN = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "<think>\nsay it\n</think>\n\nONE"},
] * 4
