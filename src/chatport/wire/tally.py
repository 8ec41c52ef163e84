"""How long an answer is so far, for when nobody has said how many tokens that is."""

from __future__ import annotations

from msgspec import UNSET, json

from chatport.wire.chat import AudioDelta, ChatChunk, Delta, TextDelta, Usage

BYTES_PER_TOKEN = 4
"""Of an estimate, as in English. A bound never divides: Chinese has fewer."""

CALL_TOKENS = 16
"""Of a bound, for a call: the marks around it are not in what it says."""

SOUND_PER_TOKEN = 3200
"""Characters of base64 of an estimate: 16-bit samples at 24 kHz, as sound is streamed, and 20 tokens a second."""

SHORTEST_SOUND = 50
"""Of a bound: speech at 6 kbit/s, the least that Opus makes, in as many tokens."""

_encode = json.Encoder().encode


class Tally:
    """Counts what the chunks of one answer say."""

    __slots__ = ("_hidden", "pieces", "size")

    def __init__(self) -> None:
        self.pieces = 0
        """That say something: each is a token at least. Heads and ends, which say nothing, are none."""
        self.size = 0
        """Bytes."""
        self._hidden = 0
        """Tokens that there may be beyond those: in chunks that say nothing, around calls, of sound."""

    def add(self, chunk: ChatChunk) -> None:
        for choice in chunk.choices:
            delta = choice.delta
            text = delta.content
            size = 0 if not text else len(text) if text.isascii() else len(text.encode())
            if type(delta) is TextDelta:
                self.pieces += 1
                self.size += size
                continue
            if delta.reasoning_content or delta.refusal or delta.audio or delta.tool_calls or delta.function_call:
                size += self._beside_content(delta)
            if size:
                self.pieces += 1
                self.size += size
            elif delta.role is UNSET:
                self._hidden += 1

    def _beside_content(self, delta: Delta) -> int:
        size = len((delta.reasoning_content or "").encode()) + len((delta.refusal or "").encode())
        if delta.audio:
            size += self._spoken(delta.audio)
        if delta.tool_calls or delta.function_call:
            size += len(_encode([delta.tool_calls or None, delta.function_call or None]))
            self._hidden += CALL_TOKENS
        return size

    def _spoken(self, audio: AudioDelta) -> int:
        """What it counts for, in bytes of text: nobody's tokens of sound are as short as its bytes."""
        sound = len(audio.data or "")
        self._hidden += -(-sound // SHORTEST_SOUND)
        return len((audio.transcript or "").encode()) + -(-sound * BYTES_PER_TOKEN // SOUND_PER_TOKEN)

    @property
    def bound(self) -> int:
        """The most tokens that these chunks can be: none is shorter than a byte, and each piece may hide one."""
        return self.size + self.pieces + self._hidden

    @property
    def tokens(self) -> int:
        """An estimate, clearly not a count."""
        return max(self.pieces, -(-self.size // BYTES_PER_TOKEN))


class Estimate(Usage, frozen=True):
    """A usage that nobody has counted. On the wire it looks like any other; the account tells the two apart."""


def usage_of(prompt_tokens: int, completion_tokens: int) -> Usage:
    """Two counts, without any details."""
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )
