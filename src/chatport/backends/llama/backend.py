"""The embedded model as a backend: a GGUF file, run inside this process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from chatport.backends.base import complete_by_streaming
from chatport.backends.llama.admission import Admission
from chatport.backends.llama.answer import Answer, Room
from chatport.backends.llama.calls import FormatName
from chatport.backends.llama.engine import BATCH, Engine, EngineSettings
from chatport.backends.llama.generation import Ending, Model, Task
from chatport.backends.llama.gguf import ModelFile, read
from chatport.backends.llama.reader import CallBegun, CallText, Saying, Thought
from chatport.backends.llama.sampling import is_exact, sampling
from chatport.backends.llama.shape import Draft, Shape, Shaper
from chatport.backends.llama.slots import Slots
from chatport.backends.llama.tape import Piece
from chatport.backends.llama.template import ChatTemplate, read_template
from chatport.backends.llama.vocabulary import Vocabulary
from chatport.targets import Bound, Feature, Target
from chatport.wire.chat import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChunkChoice,
    CompletionTokensDetails,
    CustomDelta,
    Delta,
    FunctionDelta,
    Logprobs,
    PromptTokensDetails,
    ToolCallDelta,
    Usage,
    text_delta,
)
from chatport.wire.errors import ContextExceeded, Unavailable

FEATURES: Final = frozenset(
    {
        Feature.LOGPROBS,
        Feature.LOGIT_BIAS,
        Feature.CHOICES,
        Feature.TOOLS,
        Feature.FUNCTIONS,
        Feature.JSON_OBJECT,
        Feature.JSON_SCHEMA,
    }
)
"""What an embedded model honours beyond text."""

COMPILING: Final = 2
"""Requests whose grammars are compiled at once; further ones wait."""


class LlamaSettings(Struct, frozen=True, kw_only=True):
    """How a model is run."""

    path: Path
    slots: int = 4
    """Choices generated at once; they share the window."""
    context: int | None = None
    """Tokens in the window; None, and more than the model was trained for, mean the model's own."""
    threads: int | None = None
    """None: one for each physical core."""
    queue: int = 64
    """Requests that may wait for a slot."""
    system_prompt: str | None = None
    """For requests without a system message; None leaves it to the model's template."""
    gpu_layers: int | Literal["auto"] = "auto"
    chat_template: Path | None = None
    """Of the model, where not the one in its file."""
    tool_format: FormatName | None = None
    """How the model writes calls of tools; None: what its template tells."""
    default_max_tokens: int | None = None
    """Output tokens of a choice where the request sets no limit; None: what its prompt leaves of a slot's share."""


class LlamaBackend:
    """Made by `open`."""

    def __init__(self, settings: LlamaSettings, file: ModelFile, model: Model, template: ChatTemplate) -> None:
        self._settings = settings
        self._engine = model.engine
        self._vocabulary = model.vocabulary
        self._shaper = Shaper(
            template, model.vocabulary.control_id, system_prompt=settings.system_prompt, form=settings.tool_format
        )
        self._compiling = ThreadPoolExecutor(COMPILING, thread_name_prefix="chatport-compile")
        self._begins_with: list[int] = []
        self._plain: dict[str, list[int]] = {}
        self._admission = Admission(lanes=settings.slots, cells=model.engine.context, queue=settings.queue)
        self._room = Room(model, self._admission, Slots(settings.slots, BATCH))
        self.context_length = model.engine.context
        """Tokens in the window."""
        self.fingerprint = _fingerprint(settings, file, model.engine)

    @classmethod
    async def open(cls, settings: LlamaSettings) -> LlamaBackend:
        """Loads the model, with the whole process standing still meanwhile (a second for the default model). Raises
        ModelFileError, a sentence, for a file that is missing, broken, unknown to the engine or made for no chat."""
        file = read(settings.path)
        if settings.chat_template is not None:
            file = structs.replace(file, chat_template=read_template(settings.chat_template))
        vocabulary = Vocabulary(file)
        template = ChatTemplate(file, vocabulary)
        window = EngineSettings(
            slots=settings.slots,
            context=min(file.context_length, settings.context or file.context_length),
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
        )
        backend = cls(settings, file, Model(Engine(file, window), vocabulary), template)
        await backend._learn_beginning(file)
        return backend

    @property
    def in_flight(self) -> int:
        """Choices that are generated now, and requests that wait."""
        return self._admission.lanes - self._admission.free_lanes + self._admission.waiting

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        """Exact. Raises ContextExceeded, InvalidRequest or Unsupported for messages that the template refuses, and for
        schemas and grammars that can't be held."""
        draft = self._shaper.draft(request)
        prompt = await self._tokens(draft)
        if len(prompt) > self.context_length:
            raise ContextExceeded(self.context_length, len(prompt))
        await self._shape(draft)
        asked = request.output_limit
        limit = self._limit(request, len(prompt))
        return Bound(
            prompt_tokens=len(prompt),
            output_tokens=limit * request.choices,
            counted_by="exact",
            clamped=limit if asked is not None and asked > limit else None,
            prompt=tuple(prompt),
        )

    async def complete(self, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
        """The whole answer: streamed and joined, so that it can be cancelled as well."""
        return await complete_by_streaming(self, target, request, bound)

    @asynccontextmanager
    async def stream(
        self, target: Target, request: ChatRequest, bound: Bound
    ) -> AsyncIterator[AsyncIterator[ChatChunk]]:
        """The answer as it is made. Raises Unavailable where too many wait already."""
        await self.probe(target)
        draft = self._shaper.draft(request)
        prompt = await self._tokens(draft) if bound.prompt is None else bound.prompt
        shape = await self._shape(draft)
        limit = self._limit(request, len(prompt))
        if limit == 0:
            yield self._nothing(target, request, len(prompt))
            return
        answer = Answer(self._room, self._tasks(request, shape, prompt, limit), exact=is_exact(request))
        try:
            async with aclosing(self._chunks(target, request, len(prompt), answer)) as chunks:
                yield chunks
        finally:
            await answer.leave()

    async def models(self, target: Target) -> list[str]:
        """It answers to whatever it is called."""
        return [target.model]

    async def probe(self, target: Target) -> None:
        """A model that is open is ready."""
        if self._engine.closed:
            raise Unavailable(f"The model {target.model} is shut down.")

    async def close(self) -> None:
        """Ends what is running, within a second, and unloads the model."""
        await self._engine.close()
        self._compiling.shutdown(wait=False, cancel_futures=True)

    async def _learn_beginning(self, file: ModelFile) -> None:
        """What the tokenizer puts before every text, where it does."""
        start = await self._engine.listener.tokens("", special=True, start=True)
        self._begins_with = [token for token in start[:1] if token == file.bos_id]

    async def _shape(self, draft: Draft) -> Shape:
        """What the answer may look like; off the loop where something has to be compiled, and on threads of its own,
        since it may wait there for other compilations."""
        if not draft.offer.tools and not draft.request.response_format:
            return self._shaper.shape(draft)
        return await asyncio.get_running_loop().run_in_executor(self._compiling, self._shaper.shape, draft)

    async def _tokens(self, draft: Draft) -> list[int]:
        """The prompt, with its special tokens as such and a client's spellings of them as text."""
        if self._engine.closed:
            raise Unavailable("The model is shut down.")
        content: list[str | int] = []
        self._refuse_endless(sum(len(segment.text) for segment in draft.prompt))
        for segment in draft.prompt:
            content += await self._as_text(segment.text) if segment.plain else [segment.text]
        tokens = await self._engine.listener.tokens(content, special=True)
        return tokens if tokens[:1] == self._begins_with else self._begins_with + tokens

    def _refuse_endless(self, characters: int) -> None:
        """Raises ContextExceeded for a text that can't fit whatever its tokens are: counting those of some MB takes
        seconds, and ten times the memory."""
        tokens = characters // self._vocabulary.longest
        if tokens > self.context_length:
            raise ContextExceeded(self.context_length, tokens, at_least=True)

    async def _as_text(self, spelling: str) -> list[int]:
        """The tokens of a control token's spelling that is nothing but text; there are few of them."""
        tokens = self._plain.get(spelling)
        if tokens is None:
            tokens = self._plain[spelling] = await self._engine.listener.tokens(spelling, special=False)
        return tokens

    def _limit(self, request: ChatRequest, prompt: int) -> int:
        """Output tokens of each choice."""
        room = self.context_length - prompt
        if request.output_limit is not None:
            return min(request.output_limit, room)
        return min(self._settings.default_max_tokens or self._fair_share(prompt), room)

    def _fair_share(self, prompt: int) -> int:
        """What is left of a slot's share of the window. Answers hold their longest length from the beginning: one
        without a limit must not hold the whole window, or all others would wait for it."""
        share = self.context_length // self._settings.slots
        return max(share - prompt, share // 2)

    def _tasks(self, request: ChatRequest, shape: Shape, prompt: tuple[int, ...] | list[int], limit: int) -> list[Task]:
        body = sampling(request, prompt, self._vocabulary, self.context_length, shape)
        return [
            Task(
                choice=choice,
                prompt=prompt,
                limit=limit,
                seed=request.seed,
                sampling=body,
                shape=shape,
                top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            )
            for choice in range(request.choices)
        ]

    async def _chunks(
        self, target: Target, request: ChatRequest, prompt: int, answer: Answer
    ) -> AsyncGenerator[ChatChunk, None]:
        cached: int | None = None
        sampled = thought = 0
        legacy = bool(request.functions)
        async with aclosing(answer.events()) as events:
            async for index, event in events:
                if isinstance(event, Ending):
                    sampled, thought = sampled + event.sampled, thought + event.thought
                    cached = event.cached if index == 0 else cached
                yield self._chunk(target, _said(index, event, logprobs=bool(request.logprobs), legacy=legacy))
        yield self._chunk(target, usage=_usage(prompt, sampled, cached or 0, thought))

    async def _nothing(self, target: Target, request: ChatRequest, prompt: int) -> AsyncGenerator[ChatChunk, None]:
        """An answer of no tokens, which the engine can't give: it always samples one."""
        for index in range(request.choices):
            yield self._chunk(target, ChunkChoice(index=index, delta=Delta(), finish_reason="length"))
        yield self._chunk(target, usage=_usage(prompt, 0, 0))

    def _chunk(self, target: Target, *choices: ChunkChoice, usage: Usage | None = None) -> ChatChunk:
        """Bare: the rest of the envelope is the normaliser's business."""
        return ChatChunk(
            id="",
            created=0,
            model=target.model,
            choices=list(choices),
            system_fingerprint=self.fingerprint,
            usage=usage,
        )


def _said(index: int, event: Saying | Ending, *, logprobs: bool, legacy: bool) -> ChunkChoice:
    match event:
        case Ending(reason=reason):
            return ChunkChoice(index=index, delta=Delta(), finish_reason=reason)
        case Piece(text=text, items=items):
            told = Logprobs(content=items) if logprobs else None
            return ChunkChoice(index=index, delta=text_delta(text), logprobs=told)
        case Thought(text=text):
            return ChunkChoice(index=index, delta=Delta(reasoning_content=text))
        case CallBegun(name=name):
            return ChunkChoice(index=index, delta=_call_delta(event, name, "", legacy=legacy))
        case CallText(text=text):
            return ChunkChoice(index=index, delta=_call_delta(event, UNSET, text, legacy=legacy))


def _call_delta(call: CallBegun | CallText, name: str | UnsetType, text: str, *, legacy: bool) -> Delta:
    """A piece of a call; its id is the normaliser's business."""
    if legacy:
        return Delta(function_call=FunctionDelta(name=name, arguments=text))
    if call.custom:
        custom = CustomDelta(name=name, input=text)
        return Delta(tool_calls=[ToolCallDelta(index=call.index, type="custom", custom=custom)])
    function = FunctionDelta(name=name, arguments=text)
    return Delta(tool_calls=[ToolCallDelta(index=call.index, type="function", function=function)])


def _usage(prompt: int, completion: int, cached: int, thought: int = 0) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=thought),
    )


def _fingerprint(settings: LlamaSettings, file: ModelFile, engine: Engine) -> str:
    """The same for the same weights, template, settings and engine, wherever the files lie."""
    described = msgspec.json.encode(structs.replace(settings, path=Path(file.digest), chat_template=None), enc_hook=str)
    told = described + (file.chat_template or "").encode() + engine.version.encode()
    return "fp_" + hashlib.sha256(told).hexdigest()[:10]
