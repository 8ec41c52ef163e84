"""The scripted model: says what it is told."""

from chatport.backends.scripted.backend import FEATURES, ScriptedBackend

__all__ = ["FEATURES", "ScriptedBackend"]
