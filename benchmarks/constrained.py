"""What it costs to hold the model to a grammar: tokens/s with one and without, side by side in one run.

    python benchmarks/constrained.py [--model PATH.gguf] [--streams 1,4] [--rounds 3] [--json FILE]

For each wish the model is loaded anew, alone: the engine remembers what it needs of the vocabulary for one model at a
time. Held and free answers take turns, cut at the same number of tokens, their prompts cached; medians of the rounds
count. A round is everything from the request to the answer's end; the time to the first piece is told beside it.

`schema`: a strict JSON schema with texts, numbers and lists. `object`: any JSON object. `call`: a function that must be
called. `tools`: functions that may be called (the answer is text). Each is compared with free text behind a prompt of
the same length, since tools and schemas stand in the prompt and every token of it makes the next one slower. Goal
(issue 3): at most 15 % fewer tokens/s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
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
    first: float
    """Milliseconds to the first piece of an answer, which for a call has many tokens; the mean of the streams."""
    cpu: float
    """Milliseconds of CPU per token, all threads: steady where the machine is not."""

    @classmethod
    def median(cls, costs: list[Cost]) -> Cost:
        return cls(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("rate", "first", "cpu")))


TARGET = Target(id="bench", backend="bench", model="bench", features=FEATURES)


def request(wish: str, number: int, *, held: bool, padding: int = 0, tokens: int = TOKENS) -> ChatRequest:
    """The wish, or, where it is not held to anything, as long a prompt: `padding` words more."""
    text = (
        "so " * padding
        + f"Story number {number}. Tell a long story about a lighthouse keeper, a storm and a ship, in JSON."
    )
    fields = {
        "model": "bench",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "logit_bias": dict.fromkeys(END_TOKENS, -100) if wish == "tools" or not held else None,
        **(WISHES[wish] if held else {}),
    }
    return msgspec.json.decode(msgspec.json.encode(fields), type=ChatRequest)


async def wave(backend: LlamaBackend, requests: list[ChatRequest]) -> tuple[Cost, list[int]]:
    """So many answers at once, and the tokens of each. Their prompts are cached from the wave before: what is measured
    is writing."""

    async def one(asked: ChatRequest) -> tuple[int, float]:
        """Tokens, and when the first came."""
        first, tokens = 0.0, 0
        async with backend.stream(TARGET, asked, await backend.bound(TARGET, asked)) as chunks:
            async for chunk in chunks:
                if any(choice.delta.content or choice.delta.tool_calls for choice in chunk.choices):
                    first = first or time.perf_counter()
                if chunk.usage:
                    tokens = chunk.usage.completion_tokens
        return tokens, first

    wall, cpu = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*map(one, requests))
    spent, used = time.perf_counter() - wall, time.process_time() - cpu
    lengths = [tokens for tokens, _ in answers]
    first = statistics.mean(first - wall for _, first in answers)
    return Cost(sum(lengths) / spent, 1000 * first, 1000 * used / sum(lengths)), lengths


async def padding(backend: LlamaBackend, wish: str) -> int:
    """Words that make a free prompt as long as the wish's."""
    lengths = [(await backend.bound(TARGET, request(wish, 0, held=held))).prompt_tokens for held in (True, False)]
    return max(0, lengths[0] - lengths[1])


Costs = dict[tuple[str, bool, int], Cost]
"""By wish, whether it was held, and streams."""


async def measure(model: Path, streams: list[int], rounds: int) -> Costs:
    costs: Costs = {}
    settings = LlamaSettings(path=model, slots=2 * max(streams), context=8192)
    for wish in WISHES:
        backend = await LlamaBackend.open(settings)
        pad = await padding(backend, wish)
        for count in streams:
            found: dict[bool, list[Cost]] = {True: [], False: []}
            for turn in range(rounds + 1):
                held, lengths = await wave(backend, [request(wish, n, held=True) for n in range(count)])
                # An object may end early, and one stream less is less together: free text ends where it did.
                asked = enumerate(lengths)
                free, _ = await wave(
                    backend, [request(wish, n, held=False, padding=pad, tokens=size) for n, size in asked]
                )
                if turn:  # the first reads the prompts
                    found[True].append(held)
                    found[False].append(free)
            for is_held, each in found.items():
                costs[wish, is_held, count] = Cost.median(each)
        await backend.close()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    home = Path(platformdirs.user_data_dir("chatport", appauthor=False))
    parser.add_argument("--model", type=Path, default=home / "models" / "smollm2-135m.gguf")
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    streams = [int(count) for count in told.streams.split(",")]
    costs = asyncio.run(measure(told.model, streams, told.rounds))
    print(f"{'wish':<8}" + "".join(f"{n:>3} streams: free  held  ratio  first ms   CPU ms/token" for n in streams))
    ratios = {(wish, n): costs[wish, True, n].rate / costs[wish, False, n].rate for wish in WISHES for n in streams}
    for wish in WISHES:
        cells = (
            f"{costs[wish, False, n].rate:>16.1f} {costs[wish, True, n].rate:>5.1f}  {ratios[wish, n]:.3f}"
            f"  {costs[wish, False, n].first:>3.0f} -> {costs[wish, True, n].first:<3.0f}"
            f"  {costs[wish, False, n].cpu:>5.1f} -> {costs[wish, True, n].cpu:.1f}"
            for n in streams
        )
        print(f"{wish:<8}" + "".join(cells))
    print(f"goal: every ratio >= {GOAL}: {'met' if min(ratios.values()) >= GOAL else 'MISSED'}")
    if told.json:
        rows = [{"wish": wish, "held": held, "streams": n, **asdict(cost)} for (wish, held, n), cost in costs.items()]
        told.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
