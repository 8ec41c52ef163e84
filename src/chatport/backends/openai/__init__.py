"""Every API that speaks Chat Completions: OpenAI's own, and all that are made like it.

Those that are known by name are rows of `chatport.providers`. Here, `request.py` makes what is sent, `reply.py` reads
what comes back, `reading.py` a stream of it and `pouring.py` hands that on where it arrives; `refusals.py` says what a
client hears of failures; `counting.py` bounds and estimates tokens; `backend.py` asks.
"""

from chatport.backends.openai.backend import OpenAIBackend, OpenAISettings
from chatport.backends.openai.reading import ReadLimits

__all__ = ["OpenAIBackend", "OpenAISettings", "ReadLimits"]
