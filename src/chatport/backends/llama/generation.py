"""One choice of an answer, from its place in the cache to its end; on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from chatport.backends.llama.engine import BATCH, Body, Engine, Progress
from chatport.backends.llama.logprobs import Entry, TokenLog
from chatport.backends.llama.reader import Reader, Saying
from chatport.backends.llama.sampling import engine_seed
from chatport.backends.llama.scanner import NoCall
from chatport.backends.llama.shape import Shape
from chatport.backends.llama.slots import Place
from chatport.backends.llama.tape import Piece
from chatport.backends.llama.vocabulary import Vocabulary
from chatport.wire.chat import FinishReason
from chatport.wire.errors import InternalError

FORCED: Final = 1e6
"""A bias that no logit can outweigh."""
DEEP: Final = 2048
"""Tokens of a prompt after which two batches take the better part of a second: what follows is read in smaller ones, so
that a client's leaving is noticed within a second up to the end of the default model's window."""
DEEP_BATCH: Final = BATCH // 2
"""Tokens; a divisor of `BATCH`, so that an exact prompt is cut at the same places with a cold and with a warm cache."""
DEEPER: Final = 2 * DEEP
"""Tokens after which they are smaller still."""


def deep_ends(known: int, length: int) -> Iterator[int]:
    """Where the batches end that are deep in a prompt of so many tokens, but the last; `known`: tokens read already."""
    end = max(DEEP, known)
    while (end := end + (DEEP_BATCH if end < DEEPER else DEEP_BATCH // 2)) < length:
        yield end


class Task(Struct, frozen=True, kw_only=True):
    """What one choice is to be."""

    choice: int
    prompt: Sequence[int]
    limit: int
    """Tokens; at least one."""
    seed: int | None
    sampling: Body
    shape: Shape
    top_logprobs: int | None
    """None: no logprobs at all."""


class Model(Struct, frozen=True):
    """What is loaded."""

    engine: Engine
    vocabulary: Vocabulary


class Ending(Struct, frozen=True):
    """How a choice ended."""

    reason: FinishReason
    sampled: int
    """Tokens, with the end of the turn and those of a stop sequence."""
    cached: int
    """Tokens of the prompt that were not evaluated again."""
    thought: int = 0
    """Of the tokens sampled, those of the model's thoughts."""


class Generation:
    """`say` is called with what the model says; `left` says whether nobody wants the rest."""

    def __init__(
        self,
        model: Model,
        task: Task,
        place: Place,
        say: Callable[[Saying], None],
        left: Callable[[], bool],
    ) -> None:
        self.prompt_read = False
        """Whether the prompt was evaluated to its end: then the cache holds it."""
        self._engine = model.engine
        self._task = task
        self._place = place
        self._say = say
        self._left = left
        self._reader = Reader(task.shape.reading, self._told)
        self._text: list[str] = []
        self._log = None if task.top_logprobs is None else TokenLog(model.vocabulary, task.top_logprobs)
        self._plain_tokens = model.vocabulary.plain_tokens
        self._sampled = 0
        self._before = 0  # tokens sampled before the present call of the engine
        self._cached: int | None = None
        self._thought = 0
        self._gap: _Gap | None = None
        self._late: list[Progress] = []
        self._reason: FinishReason | None = None

    def run(self) -> Ending | None:
        """Blocks until the choice has ended; None: nobody wanted the rest. Raises ApiError."""
        self._prepare()
        reuse = self._read_deep()
        while self._reason is None:
            self._engine.complete(self._body(reuse=reuse), self._observe)
            if self._left():
                return None
            self._close_gap()
            reuse = True
        self._reader.end()
        return Ending(self._ended(self._reason), self._sampled, self._cached or 0, self._thought)

    def _ended(self, reason: FinishReason) -> FinishReason:
        """Why, as the API says it. Raises InternalError for a whole answer that breaks what was promised."""
        if reason != "stop" or self._reader.stopped:
            return reason
        self._task.shape.check("".join(self._text), self._reader.calls)
        return self._task.shape.ended(self._reader.calls)

    def _prepare(self) -> None:
        """Makes of the cache what the place says. What follows the tokens to keep is cut off by reading another one
        in its stead: the engine always uses all that it can."""
        if self._place.erase:
            self._engine.erase()
        if keep := self._place.keep:
            prompt = self._task.prompt
            other = next(token for token in self._plain_tokens if token != prompt[keep])
            body = {**self._call, "prompt": [*prompt[:keep], other], "n_predict": 1, "cache_prompt": True}
            self._engine.complete(body, lambda _: self._left())

    def _read_deep(self) -> bool:
        """Reads what is deep in a long prompt, all but its end, batch by batch, each a call of its own: the engine has
        one size of batches. Returns whether what is in the slot may be used from here on."""
        prompt, reuse = self._task.prompt, self._place.reuse
        for end in deep_ends(self._place.known, len(prompt)):
            if self._left():
                break
            body = {**self._call, "prompt": prompt[:end], "n_predict": 1, "cache_prompt": reuse}
            self._engine.complete(body, self._observe_reading)
            reuse = True
        return reuse

    def _observe_reading(self, progress: Progress) -> bool:
        if read := progress.get("prompt_progress"):
            self._cached = read["cache"] if self._cached is None else self._cached
        return self._left()

    @property
    def _call(self) -> Body:
        return {"stream": True, "return_progress": True, "id_slot": self._place.slot}

    def _body(self, *, reuse: bool) -> Body:
        task = self._task
        return {
            **task.sampling,
            **self._call,
            "prompt": [*task.prompt, *(self._log.ids if self._log else ())],
            "n_predict": task.limit - self._before,
            "seed": engine_seed(task.seed, task.choice, at=self._before),
            "cache_prompt": reuse,
        }

    def _observe(self, progress: Progress) -> bool:
        """What the engine says; True: enough."""
        if self._left():
            return True
        if read := progress.get("prompt_progress"):
            self.prompt_read = read["processed"] == read["total"]
            return self._observe_reading(progress)
        choice = progress["choices"][0]
        if choice["finish_reason"]:
            self._reason = choice["finish_reason"]
            self._sampled = self._before + progress["usage"]["completion_tokens"]
        elif self._log is None:
            self._take(choice["text"], progress)
        elif self._gap is None:
            self._take_logged(self._log, progress)
        elif self._task.shape.grammar is None:
            return True  # what is in the gap can only be asked for when the engine is not at work on this
        else:
            self._late.append(progress)  # a grammar can't be entered again in its middle: all is asked for at the end
        return self._reader.over

    def _take(self, text: str, progress: Progress) -> None:
        if timings := progress.get("timings"):
            self._sampled = self._before + timings["predicted_n"]
        self._push(Piece(text))

    def _take_logged(self, log: TokenLog, progress: Progress) -> None:
        choice = progress["choices"][0]
        entry = choice["logprobs"]["content"][0]
        self._sampled = self._before + progress["timings"]["predicted_n"]
        if missing := self._sampled - 1 - len(log.ids):
            self._gap = _Gap(missing, choice["text"], entry)
        else:
            self._push(Piece(choice["text"], [log.add(entry)]))

    def _push(self, piece: Piece) -> None:
        was_thinking = self._reader.thinking
        try:
            self._reader.push(piece)
        except NoCall as exc:
            self._task.shape.broken(str(exc))
        if was_thinking or self._reader.thinking:
            self._thought = self._sampled
        if self._reader.over:
            self._reason = "stop"

    def _told(self, said: Saying) -> None:
        if isinstance(said, Piece) and self._task.shape.json:
            self._text.append(said.text)
        self._say(said)

    def _close_gap(self) -> None:
        """The engine's call is over: at the answer's end, or because the items of some tokens must be asked for. Then
        the answer goes on where it was; what was sampled while the gap was noticed is sampled again."""
        if self._log is None or (self._gap is None and self._reason is None):
            if self._reason is None:
                raise InternalError
            return
        ended, sampled = self._reason is not None, self._sampled
        self._fill_gap(self._log)
        for progress in self._late:
            if not self._reader.over:
                self._take_logged(self._log, progress)
                self._fill_gap(self._log)
        if not ended:
            self._sampled = self._before = len(self._log.ids)
            if self._sampled >= self._task.limit and not self._reader.over:
                self._reason = "length"
            return
        self._sampled = sampled
        if (missing := sampled - len(self._log.ids)) > 0 and not self._reader.over:
            self._push(Piece("", self._log.fill(missing, "", None, self._ask)))

    def _fill_gap(self, log: TokenLog) -> None:
        if gap := self._gap:
            self._gap = None
            items = log.fill(gap.tokens, gap.text, gap.follows, self._ask)
            self._push(Piece(gap.text, [*items, log.add(gap.follows)]))

    def _ask(self, generated: Sequence[int], wanted: int) -> list[Entry]:
        """The likeliest tokens at a place in the answer. A token is forced there that is told of whatever it is."""
        ranked: list[Entry] = []
        body = {
            **self._call,
            "prompt": [*self._task.prompt, *generated],
            "n_predict": 1,
            "n_probs": wanted,
            "temperature": 0.0,
            "logit_bias": [[self._plain_tokens[0], FORCED]],
            "cache_prompt": True,
        }

        def collect(progress: Progress) -> bool:
            if "prompt_progress" not in progress and (told := progress["choices"][0]["logprobs"]):
                ranked.extend(told["content"][0]["top_logprobs"])
            return False

        self._engine.complete(body, collect)
        if not ranked:
            raise InternalError
        return ranked


class _Gap(Struct, frozen=True):
    """Tokens inside a character, of which the engine told nothing, and what came after them."""

    tokens: int
    text: str
    follows: Entry
