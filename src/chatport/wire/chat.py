"""The Chat Completions wire format: the language of the whole house (contract.md §4-§10).

A request is decoded once into these frozen structs and travels through every room as it is; an answer is built from
them and encoded once. Field for field as the API spells it, with the constraints msgspec can check while it decodes;
what it can't check (rules between fields, §8) is `rules.py`. Where an optional field says `None`, JSON `null` means
"not given". What stays free-form, a caller's JSON schema above all, travels as `msgspec.Raw` and is never walked here.

Source: contract.md; OpenAI's published OpenAPI description v2.3.0.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

NULL = Raw(b"null")
"""The default of an optional `Raw`: msgspec refuses objects where the default is None."""

Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]+\Z", min_length=1, max_length=64)]
"""A tool's, function's or schema's name. (`\\Z`, because `$` would let a line feed follow.)"""

SpeakerName = Annotated[str, Meta(pattern=r"^[^\s<|\\/>]+\Z", min_length=1, max_length=64)]
"""A message's `name`."""


# --- Parts of a message's content (§5) -------------------------------------------------------------------------------


class Part(Struct, frozen=True, omit_defaults=True, tag_field="type", kw_only=True):
    """One part of an array content."""


class CacheBreakpoint(Struct, frozen=True):
    mode: Literal["explicit"]


class CachedPart(Part, frozen=True, kw_only=True):
    """A part that may end a stretch of the prompt worth caching."""

    prompt_cache_breakpoint: CacheBreakpoint | None = None


class TextPart(CachedPart, frozen=True, tag="text"):
    text: str


class ImageURL(Struct, frozen=True, omit_defaults=True):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(CachedPart, frozen=True, tag="image_url"):
    image_url: ImageURL


class InputAudio(Struct, frozen=True):
    data: str
    format: Literal["wav", "mp3"]


class AudioPart(CachedPart, frozen=True, tag="input_audio"):
    input_audio: InputAudio


class File(Struct, frozen=True, omit_defaults=True):
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class FilePart(CachedPart, frozen=True, tag="file"):
    file: File


class RefusalPart(Part, frozen=True, tag="refusal"):
    refusal: str


TextParts = Annotated[list[TextPart], Meta(min_length=1)]
UserPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart
UserParts = Annotated[list[UserPart], Meta(min_length=1)]
AssistantParts = Annotated[list[TextPart | RefusalPart], Meta(min_length=1)]


# --- Messages (§5) ---------------------------------------------------------------------------------------------------


class FunctionCall(Struct, frozen=True):
    """A call as it stands in a message: `arguments` is a string of JSON, as the model wrote it."""

    name: str
    arguments: str


class CustomCall(Struct, frozen=True):
    name: str
    input: str


class FunctionToolCall(Struct, frozen=True, tag_field="type", tag="function"):
    id: str
    function: FunctionCall


class CustomToolCall(Struct, frozen=True, tag_field="type", tag="custom"):
    id: str
    custom: CustomCall


ToolCall: TypeAlias = FunctionToolCall | CustomToolCall


class AudioRef(Struct, frozen=True):
    id: str


class BaseMessage(Struct, frozen=True, omit_defaults=True, tag_field="role", kw_only=True):
    """A message, told apart by `role`. Unknown keys are ignored here and never a 400 (§5)."""

    name: SpeakerName | None = None


class DeveloperMessage(BaseMessage, frozen=True, tag="developer"):
    content: str | TextParts


class SystemMessage(BaseMessage, frozen=True, tag="system"):
    content: str | TextParts


class UserMessage(BaseMessage, frozen=True, tag="user"):
    content: str | UserParts


class AssistantMessage(BaseMessage, frozen=True, tag="assistant"):
    content: str | AssistantParts | None = None
    refusal: str | None = None
    audio: AudioRef | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1, max_length=128)] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ToolMessage(BaseMessage, frozen=True, tag="tool"):
    content: str | TextParts
    tool_call_id: str


class FunctionMessage(BaseMessage, frozen=True, tag="function", kw_only=True):
    """Deprecated: the answer to a `function_call`; here `name` is required and says whose answer it is."""

    content: str | None
    name: SpeakerName


Message: TypeAlias = DeveloperMessage | SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


# --- Tools (§6) ------------------------------------------------------------------------------------------------------


class Function(Struct, frozen=True, omit_defaults=True):
    """A function offered to the model; `parameters` is the caller's JSON schema, untouched."""

    name: Name
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class FunctionTool(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="function"):
    function: Function


class Grammar(Struct, frozen=True):
    syntax: Literal["lark", "regex"]
    definition: str


class TextFormat(Struct, frozen=True, tag_field="type", tag="text"):
    pass


class GrammarFormat(Struct, frozen=True, tag_field="type", tag="grammar"):
    grammar: Grammar


class Custom(Struct, frozen=True, omit_defaults=True):
    name: Name
    description: str | None = None
    format: TextFormat | GrammarFormat | None = None


class CustomTool(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="custom"):
    custom: Custom


Tool: TypeAlias = FunctionTool | CustomTool


class FunctionName(Struct, frozen=True):
    name: str


class NamedFunction(Struct, frozen=True, tag_field="type", tag="function"):
    function: FunctionName


class NamedCustom(Struct, frozen=True, tag_field="type", tag="custom"):
    custom: FunctionName


NamedTool: TypeAlias = NamedFunction | NamedCustom


class AllowedTools(Struct, frozen=True):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedToolsChoice(Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    allowed_tools: AllowedTools


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | NamedFunction | NamedCustom | AllowedToolsChoice


# --- The request's smaller objects (§4, §7) --------------------------------------------------------------------------


class StreamOptions(Struct, frozen=True, omit_defaults=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JSONSchemaFormat(Struct, frozen=True, omit_defaults=True):
    name: Name
    description: str | None = None
    schema: Raw = NULL
    strict: bool | None = None


class ResponseFormat(Struct, frozen=True, omit_defaults=True):
    """`{}` means text, `{"json_schema":…}` without a type means json_schema (§1, row 10)."""

    type: Literal["text", "json_object", "json_schema"] | None = None
    json_schema: JSONSchemaFormat | None = None

    @property
    def kind(self) -> Literal["text", "json_object", "json_schema"]:
        """What is meant, the type given or not."""
        return self.type or ("text" if self.json_schema is None else "json_schema")


class VoiceRef(Struct, frozen=True):
    id: str


class AudioOutput(Struct, frozen=True):
    voice: str | VoiceRef
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]


class Prediction(Struct, frozen=True):
    """`type` is a field, not a tag: msgspec asks for a tag only where several structs are told apart by it."""

    type: Literal["content"]
    content: str | TextParts


class PromptCacheOptions(Struct, frozen=True, omit_defaults=True):
    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m"] | None = None


class Location(Struct, frozen=True, omit_defaults=True):
    country: str | None = None
    region: str | None = None
    city: str | None = None
    timezone: str | None = None


class UserLocation(Struct, frozen=True):
    type: Literal["approximate"]
    approximate: Location


class WebSearchOptions(Struct, frozen=True, omit_defaults=True):
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: UserLocation | None = None


class ModerationRule(Struct, frozen=True, omit_defaults=True):
    mode: Literal["score", "block"] | None = None


class ModerationPolicy(Struct, frozen=True, omit_defaults=True):
    input: ModerationRule | None = None
    output: ModerationRule | None = None


class Moderation(Struct, frozen=True, omit_defaults=True):
    model: str
    policy: ModerationPolicy | None = None


INT64 = 2**63

Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenLimit = Annotated[int, Meta(ge=0, le=INT64 - 1)]
LogitBias = dict[Annotated[str, Meta(pattern=r"^[0-9]{1,18}\Z")], Annotated[int, Meta(ge=-100, le=100)]]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]


class ChatRequest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/chat/completions, every field of contract.md §4."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    user: str | None = None
    tools: Annotated[list[Tool], Meta(min_length=1, max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    seed: Annotated[int, Meta(ge=-INT64, le=INT64 - 1)] | None = None
    reasoning_effort: ReasoningEffort | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Meta(min_length=1)] | None = None
    audio: AudioOutput | None = None
    prediction: Prediction | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    service_tier: ServiceTier | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    web_search_options: WebSearchOptions | None = None
    moderation: Moderation | None = None
    functions: Annotated[list[Function], Meta(min_length=1, max_length=128)] | None = None
    function_call: Literal["none", "auto"] | FunctionName | None = None

    @property
    def output_limit(self) -> int | None:
        """Tokens each choice may have: the smaller of the two spellings, None when neither is given."""
        limit, older = self.max_completion_tokens, self.max_tokens
        if limit is None or older is None:
            return older if limit is None else limit
        return min(limit, older)

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.n or 1

    @property
    def stop_sequences(self) -> list[str]:
        """`stop` as a list; empty when not given."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        """Whether a stream must end with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)


class GivenRequest(ChatRequest, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A request with the fields of its body as they were given: for those that the contract does not know."""

    given: dict[str, Raw] = field(default_factory=dict, name="fields as given")
    """Set after decoding; no client's field is called so."""

    @property
    def unknown(self) -> list[str]:
        """The fields that the contract does not know, in the body's order."""
        return [name for name in self.given if name not in ChatRequest.__struct_fields__]


class MetadataUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions/{id}: `metadata` must be there, null clears it (§14)."""

    metadata: Metadata | None


# --- What an answer is made of (§9) ----------------------------------------------------------------------------------

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class TopLogprob(Struct, frozen=True, gc=False):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Struct, frozen=True, gc=False):
    """One sampled token; `logprob` <= 0, `bytes` its UTF-8, which joined over all items equal the content's."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob] = []


class Logprobs(Struct, frozen=True, gc=False):
    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None = None


class PromptTokensDetails(Struct, frozen=True, omit_defaults=False, gc=False):
    """Newer counts are there only where the model's server says them."""

    cached_tokens: int = 0
    audio_tokens: int = 0
    text_tokens: int | UnsetType = UNSET
    image_tokens: int | UnsetType = UNSET
    cache_write_tokens: int | UnsetType = UNSET


class CompletionTokensDetails(Struct, frozen=True, gc=False):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    text_tokens: int | UnsetType = UNSET


class Usage(Struct, frozen=True, gc=False):
    """Tokens: the prompt once whatever `n` is, the completion over all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class ResponseMessage(Struct, frozen=True, kw_only=True, gc=False):
    """`choices[].message`: content, refusal and annotations always there, the rest only when the model gave it."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    annotations: list[Raw] = []
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    audio: Raw | UnsetType = UNSET


class Choice(Struct, frozen=True, kw_only=True, gc=False):
    index: int
    message: ResponseMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(Struct, frozen=True, kw_only=True, gc=False):
    """The reply of a request that does not stream; also what is stored (§14)."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str
    service_tier: str = "default"
    metadata: dict[str, str] | UnsetType | None = UNSET


# --- Chunks of a streamed answer (§10) -------------------------------------------------------------------------------


class FunctionDelta(Struct, frozen=True, omit_defaults=True, gc=False):
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class CustomDelta(Struct, frozen=True, omit_defaults=True, gc=False):
    name: str | UnsetType = UNSET
    input: str | UnsetType = UNSET


class ToolCallDelta(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A piece of a call: id, type and name come with the first one of its index, text with the later ones."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function", "custom"] | UnsetType = UNSET
    function: FunctionDelta | UnsetType = UNSET
    custom: CustomDelta | UnsetType = UNSET


class AudioDelta(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A piece of a spoken answer: `data` is base64, its transcript comes in pieces of its own."""

    id: str | UnsetType = UNSET
    data: str | UnsetType = UNSET
    transcript: str | UnsetType = UNSET
    expires_at: int | UnsetType = UNSET


class Delta(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET
    audio: AudioDelta | UnsetType = UNSET
    annotations: list[Raw] | UnsetType = UNSET


class TextDelta(Delta, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Text, never empty, and nothing else, as in nearly all chunks: whoever meets one need not look at the other
    fields. On the wire it looks like any other, and one that comes back from there is a `Delta`: slower, not
    different."""

    content: str


def text_delta(text: str) -> Delta:
    """The delta that says this and nothing else."""
    return TextDelta(content=text) if text else Delta(content=text)


class ChunkChoice(Struct, frozen=True, kw_only=True, gc=False):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Struct, frozen=True, kw_only=True, gc=False):
    """One frame of a stream. `usage`: absent unless the client asked for it, then null in all but the last (§10, 8)."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    service_tier: str | UnsetType = UNSET
    usage: Usage | UnsetType | None = UNSET
    obfuscation: str | UnsetType = UNSET


# --- Models (§15) ----------------------------------------------------------------------------------------------------


class ModelObject(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One entry of GET /v1/models; `context_length` and `capabilities` are additions of ours."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int | None = None
    capabilities: list[str] | None = None
