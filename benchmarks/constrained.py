"""What it costs to hold the model to a grammar: tokens/s with one and without, side by side in one run.

    python benchmarks/constrained.py [--model PATH.gguf] [--streams 1,4] [--rounds 3] [--json FILE]

For each wish the model is loaded once; they answer in turns (A/B/C/A/B/C), each answer cut at the same number of
tokens, its prompt cached; the best round of each counts. `text`: no grammar. `schema`: a strict JSON schema with texts,
numbers and lists. `object`: any JSON object. `call`: a function that must be called. `tools`: functions that may be
called (the answer is text). Goal (issue 3): at most 15 % fewer tokens/s than `text`.
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
    "text": {},
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


def request(wish: str, number: int) -> ChatRequest:
    text = f"Story number {number}. Tell a long story about a lighthouse keeper, a storm and a ship, in JSON."
    fields = {
        "model": "bench",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": TOKENS,
        "logit_bias": dict.fromkeys(END_TOKENS, -100) if wish in ("text", "tools") else None,
        **WISHES[wish],
    }
    return msgspec.json.decode(msgspec.json.encode(fields), type=ChatRequest)


async def wave(backend: LlamaBackend, wish: str, streams: int) -> Cost:
    """So many answers at once. Their prompts are cached from the wave before: what is measured is writing."""

    async def one(number: int) -> int:
        asked = request(wish, number)
        reply = await backend.complete(TARGET, asked, await backend.bound(TARGET, asked))
        return reply.usage.completion_tokens

    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(await asyncio.gather(*(one(number) for number in range(streams))))
    return Cost(tokens / (time.perf_counter() - wall), 1000 * (time.process_time() - cpu) / tokens)


async def measure(model: Path, streams: list[int], rounds: int) -> dict[str, dict[int, Cost]]:
    best: dict[str, dict[int, Cost]] = {wish: {} for wish in WISHES}
    settings = LlamaSettings(path=model, slots=max(streams), context=4096)
    backends = {wish: await LlamaBackend.open(settings) for wish in WISHES}
    for count in streams:
        for turn in range(rounds + 1):
            for wish, backend in backends.items():
                found = await wave(backend, wish, count)
                if turn:  # the first reads the prompts
                    best[wish][count] = found.better(best[wish].get(count, found))
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
    print(f"{'wish':<8}" + "".join(f"{n:>3} streams tok/s  ratio  CPU ms/token" for n in streams))
    for wish, costs in best.items():
        cells = (f"{costs[n].rate:>17.1f}  {ratio(best, wish, n):.3f}  {costs[n].cpu:>12.2f}" for n in streams)
        print(f"{wish:<8}" + "".join(cells))
    worst = min(ratio(best, wish, n) for wish in WISHES for n in streams)
    print(f"goal: every ratio >= {GOAL}: {'met' if worst >= GOAL else 'MISSED'}")
    if told.json:
        told.json.write_text(json.dumps(best, default=asdict, indent=2))


def ratio(best: dict[str, dict[int, Cost]], wish: str, streams: int) -> float:
    return best[wish][streams].rate / best["text"][streams].rate


if __name__ == "__main__":
    main()
