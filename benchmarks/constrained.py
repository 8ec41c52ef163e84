"""What it costs to hold the model to a grammar: tokens/s with one and without, side by side in one run.

    python benchmarks/constrained.py [--model PATH.gguf] [--streams 1,4] [--rounds 3] [--json FILE]

For each wish the model is loaded once; they answer in turns (A/B/C/A/B/C), each answer cut at the same number of
tokens, its prompt cached; the best round of each counts. `schema`: a strict JSON schema with texts, numbers and lists.
`object`: any JSON object. `call`: a function that must be called. `tools`: functions that may be called (the answer is
text). Each is compared with free text behind a prompt of the same length, since tools and schemas stand in the prompt
and every token of it makes the next one slower. Goal (issue 3): at most 15 % fewer tokens/s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from chatport.backends.llama import FEATURES, LlamaBackend, LlamaSettings
from chatport.targets import Target
from chatport.wire.chat import ChatRequest

TOKENS = 96
END_TOKENS = ("0", "2")
"""`<|endoftext|>` and `<|im_end|>` of SmolLM2, banned so that text is as long as the rest."""
GOAL = 0.85
PERSON = {
    "type": "object",
    "properties": {
        "story": {"type": "string", "minLength": 200},
        "numbers": {"type": "array", "items": {"type": "number"}, "minItems": 50},
    },
    "required": ["story", "numbers"],
    "additionalProperties": False,
}
FUNCTION = {"type": "function", "function": {"name": "tell", "parameters": PERSON}}
WISHES: dict[str, dict[str, Any]] = {
    "schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}}
    },
    "object": {"response_format": {"type": "json_object"}},
    "call": {"tools": [FUNCTION], "tool_choice": "required"},
    "tools": {"tools": [FUNCTION]},
}


@dataclass(frozen=True)
class Cost:
    rate: float
    """Tokens per second."""
    cpu: float
    """Milliseconds of CPU per token, all threads: steady where the machine is not."""

    def better(self, other: Cost) -> Cost:
        return Cost(max(self.rate, other.rate), min(self.cpu, other.cpu))


TARGET = Target(id="bench", backend="bench", model="bench", features=FEATURES)


def request(wish: str, number: int, *, held: bool, padding: int = 0) -> ChatRequest:
    """The wish, or, where it is not held to anything, as long a prompt: `padding` words more."""
    text = (
        "so " * padding
        + f"Story number {number}. Tell a long story about a lighthouse keeper, a storm and a ship, in JSON."
    )
    fields = {
        "model": "bench",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": TOKENS,
        "logit_bias": dict.fromkeys(END_TOKENS, -100) if wish == "tools" or not held else None,
        **(WISHES[wish] if held else {}),
    }
    return msgspec.json.decode(msgspec.json.encode(fields), type=ChatRequest)


async def wave(backend: LlamaBackend, requests: list[ChatRequest]) -> Cost:
    """So many answers at once. Their prompts are cached from the wave before: what is measured is writing."""

    async def one(asked: ChatRequest) -> int:
        reply = await backend.complete(TARGET, asked, await backend.bound(TARGET, asked))
        return reply.usage.completion_tokens

    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(await asyncio.gather(*map(one, requests)))
    return Cost(tokens / (time.perf_counter() - wall), 1000 * (time.process_time() - cpu) / tokens)


async def padding(backend: LlamaBackend, wish: str) -> int:
    """Words that make a free prompt as long as the wish's."""
    lengths = [(await backend.bound(TARGET, request(wish, 0, held=held))).prompt_tokens for held in (True, False)]
    return max(0, lengths[0] - lengths[1])


Costs = dict[tuple[str, bool, int], Cost]
"""By wish, whether it was held, and streams."""


async def measure(model: Path, streams: list[int], rounds: int) -> Costs:
    best: Costs = {}
    settings = LlamaSettings(path=model, slots=max(streams), context=4096)
    sides = [(wish, held) for wish in WISHES for held in (False, True)]
    backends = {side: await LlamaBackend.open(settings) for side in sides}
    for count in streams:
        for turn in range(rounds + 1):
            for (wish, held), backend in backends.items():
                pad = 0 if held else await padding(backend, wish)
                found = await wave(backend, [request(wish, n, held=held, padding=pad) for n in range(count)])
                if turn:  # the first reads the prompts
                    best[wish, held, count] = found.better(best.get((wish, held, count), found))
    for backend in backends.values():
        await backend.close()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    home = Path(platformdirs.user_data_dir("chatport", appauthor=False))
    parser.add_argument("--model", type=Path, default=home / "models" / "smollm2-135m.gguf")
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    streams = [int(count) for count in told.streams.split(",")]
    best = asyncio.run(measure(told.model, streams, told.rounds))
    print(f"{'wish':<8}" + "".join(f"{n:>3} streams: free  held  ratio  CPU ms/token" for n in streams))
    ratios = {(wish, n): best[wish, True, n].rate / best[wish, False, n].rate for wish in WISHES for n in streams}
    for wish in WISHES:
        cells = (
            f"{best[wish, False, n].rate:>16.1f} {best[wish, True, n].rate:>5.1f}  {ratios[wish, n]:.3f}"
            f"  {best[wish, False, n].cpu:>5.1f} -> {best[wish, True, n].cpu:.1f}"
            for n in streams
        )
        print(f"{wish:<8}" + "".join(cells))
    print(f"goal: every ratio >= {GOAL}: {'met' if min(ratios.values()) >= GOAL else 'MISSED'}")
    if told.json:
        rows = [{"wish": wish, "held": held, "streams": n, **asdict(cost)} for (wish, held, n), cost in best.items()]
        told.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
