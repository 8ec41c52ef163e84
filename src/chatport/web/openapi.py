"""GET /openapi.json: every endpoint, described from the structs that decode and encode its messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from msgspec import Meta, Struct, UnsetType, inspect, json

from chatport import __version__
from chatport.policy.overview import KeyOverview
from chatport.policy.story import Story
from chatport.web.account import DEFAULT_CHANGES, DEFAULT_SINCE, MOST_CHANGES, AuditList, UsageList
from chatport.web.admin import ReportedList, UnknownFieldList
from chatport.web.exchange import JSON, Exchange
from chatport.web.models import ModelList
from chatport.web.site import Site
from chatport.wire import chat
from chatport.wire.chat import ChatChunk, ChatCompletion, MetadataUpdate, ModelObject
from chatport.wire.errors import ErrorBody
from chatport.wire.stored import DEFAULT_LIMIT, MAX_LIMIT, CompletionDeleted, CompletionList, MessageList

JSONSchema = dict[str, Any]


async def describe(exchange: Exchange, site: Site) -> None:
    """This description."""
    await exchange.reply(200, document(), [(b"content-type", JSON)])


# --- The request, as it is described ---------------------------------------------------------------------------------
# A caller's JSON schema travels as msgspec.Raw, which says nothing about itself; here it is shown as the object it is.


class Function(chat.Function, frozen=True):
    """A function offered to the model; `parameters` is a JSON schema."""

    parameters: JSONSchema | None = None  # type: ignore[assignment]


class FunctionTool(chat.FunctionTool, frozen=True, tag_field="type", tag="function"):
    function: Function


class JSONSchemaFormat(chat.JSONSchemaFormat, frozen=True):
    """What the reply's text must look like."""

    schema: JSONSchema | None = None  # type: ignore[assignment]


class ResponseFormat(chat.ResponseFormat, frozen=True):
    json_schema: JSONSchemaFormat | None = None


class ChatRequest(chat.ChatRequest, frozen=True, kw_only=True):
    """What POST /v1/chat/completions takes."""

    tools: Annotated[list[FunctionTool | chat.CustomTool], Meta(min_length=1, max_length=128)] | None = None  # type: ignore[assignment]
    response_format: ResponseFormat | None = None
    functions: Annotated[list[Function], Meta(min_length=1, max_length=128)] | None = None  # type: ignore[assignment]


class Reloaded(Struct, frozen=True):
    """The models that are served now, and the settings that need a restart."""

    models: list[str]
    restart_needed: list[str]


class Readiness(Struct, frozen=True):
    """What /readyz says: of the store, of each model by its id, of the configuration; "ready" or what is wrong. Of
    models on demand: "loaded", "loading", "not loaded", or what is wrong; whether it is ready does not depend on them.
    """

    ready: bool
    configuration: str
    store: str
    models: dict[str, str]
    on_demand: dict[str, str]


# --- Headers of replies ----------------------------------------------------------------------------------------------


class Header(Struct, frozen=True):
    """`only`: the statuses that have it; empty is every one."""

    name: str
    type: str
    description: str
    only: tuple[int, ...] = ()


ALWAYS = (Header("x-request-id", "string", "Unique; name it when you ask about a request."),)
OF_ERRORS = (
    Header("WWW-Authenticate", "string", "How to authenticate: `Bearer`.", only=(401,)),
    Header("Allow", "string", "The methods that the path has.", only=(405,)),
    Header("retry-after", "integer", "Seconds to wait, where that is known.", only=(429, 503)),
    Header("retry-after-ms", "integer", "The same in milliseconds.", only=(429, 503)),
    Header("x-should-retry", "string", "`false`: the same request will never pass.", only=(429,)),
)
OF_CREATE = (
    *(
        Header(f"x-ratelimit-{word}-{unit}", kind, f"{meaning} Where a limit applies.", only=(200, 429, 500, 503))
        for unit in ("requests", "tokens")
        for word, kind, meaning in (
            ("limit", "integer", f"How many {unit} there are."),
            ("remaining", "integer", f"How many {unit} are left."),
            ("reset", "string", "How long until all are there again, such as `6m0s`."),
        )
    ),
    Header("openai-processing-ms", "integer", "Milliseconds until the reply's head."),
    Header("openai-version", "string", "Version of the API that is spoken."),
    Header(
        "x-chatport-clamped",
        "integer",
        "The output limit used, where more was asked for.",
        only=(200,),
    ),
    Header("x-chatport-target", "string", "The upstream that was asked last.", only=(200,)),
    Header("x-chatport-attempts", "integer", "How often the request was sent upstream.", only=(200,)),
    Header("x-chatport-fallback", "string", "The model that answered in place of the one asked for.", only=(200,)),
    Header("x-chatport-replayed", "string", "`true` where the reply is an earlier one.", only=(200,)),
)


# --- Operations ------------------------------------------------------------------------------------------------------


class Parameter(Struct, frozen=True):
    """A query parameter, or a header where `place` says so."""

    name: str
    description: str
    schema: dict[str, Any]
    place: str = "query"
    style: str | None = None


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path.

    `errors`: statuses beside those that every keyed operation can answer with. `unready`: with 503 it replies the same.
    """

    summary: str
    reply: Any
    takes: Any = None
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[Header, ...] = ALWAYS
    unready: bool = False
    errors: tuple[int, ...] = ()
    keyed: bool = True


PAGE = (
    Parameter("after", "Id of the last item of the page before.", {"type": "string"}),
    Parameter(
        "limit", "Items on a page.", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
    ),
    Parameter("order", "By time.", {"enum": ["asc", "desc"], "default": "asc"}),
)
FILTERS = (
    Parameter("model", "Only completions of this model.", {"type": "string"}),
    Parameter(
        "metadata",
        "Only completions with this metadata: metadata[key]=value.",
        {"type": "object", "additionalProperties": {"type": "string"}},
        style="deepObject",
    ),
)
IDEMPOTENCY = Parameter(
    "Idempotency-Key",
    "The same key and body within 24 hours bring the same reply back.",
    {"type": "string", "minLength": 1, "maxLength": 255},
    place="header",
)
USAGE = (
    Parameter("by", "What is added up together.", {"enum": ["key", "owner", "user", "model", "day"], "default": "key"}),
    Parameter("since", "24h, 7d, a date or a time.", {"type": "string", "default": DEFAULT_SINCE}),
)
CHANGES = (
    Parameter(
        "limit",
        "Changes on a page, the newest first.",
        {"type": "integer", "minimum": 1, "maximum": MOST_CHANGES, "default": DEFAULT_CHANGES},
    ),
    Parameter("before", "The sequence number that the page before ended with.", {"type": "integer", "minimum": 1}),
)
STORED = "/v1/chat/completions/{id}"

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("/v1/chat/completions", "post"): Operation(
        summary="Create a completion, streamed or whole",
        takes=ChatRequest,
        reply=ChatCompletion,
        parameters=(IDEMPOTENCY,),
        headers=(*ALWAYS, *OF_CREATE),
        errors=(400, 403, 404, 413, 429),
    ),
    ("/v1/chat/completions", "get"): Operation(
        summary="List stored completions", reply=CompletionList, parameters=(*PAGE, *FILTERS), errors=(400, 404)
    ),
    (STORED, "get"): Operation(summary="Get a stored completion", reply=ChatCompletion, errors=(404,)),
    (STORED, "post"): Operation(
        summary="Replace a stored completion's metadata",
        takes=MetadataUpdate,
        reply=ChatCompletion,
        errors=(400, 404, 413),
    ),
    (STORED, "delete"): Operation(summary="Delete a stored completion", reply=CompletionDeleted, errors=(404,)),
    (f"{STORED}/messages", "get"): Operation(
        summary="List the messages a stored completion answered",
        reply=MessageList,
        parameters=PAGE,
        errors=(400, 404),
    ),
    ("/v1/models", "get"): Operation(summary="List models", reply=ModelList),
    ("/v1/models/{model}", "get"): Operation(summary="Get a model", reply=ModelObject, errors=(403, 404)),
    ("/v1/key", "get"): Operation(
        summary="The key that asks: its limits, its budgets and what is left of them, what it used", reply=KeyOverview
    ),
    ("/admin/requests/{id}", "get"): Operation(
        summary="The whole story of one request, by its x-request-id (admin keys)", reply=Story, errors=(403, 404)
    ),
    ("/admin/usage", "get"): Operation(
        summary="What was used (admin keys)", reply=UsageList, parameters=USAGE, errors=(400, 403)
    ),
    ("/admin/audit", "get"): Operation(
        summary="Who changed which key, budget, price, limit or owner (admin keys)",
        reply=AuditList,
        parameters=CHANGES,
        errors=(400, 403),
    ),
    ("/admin/reload", "post"): Operation(
        summary="Read the configuration again (admin keys)", reply=Reloaded, errors=(400, 403)
    ),
    ("/admin/unknown-fields", "get"): Operation(
        summary="Fields that the API does not have, by who sends them (admin keys)",
        reply=UnknownFieldList,
        errors=(403,),
    ),
    ("/admin/limits", "get"): Operation(
        summary="What limits that only report would have refused (admin keys)", reply=ReportedList, errors=(403,)
    ),
    ("/", "get"): Operation(summary="Where the API is", reply=dict[str, str], keyed=False),
    ("/healthz", "get"): Operation(summary="Whether the process runs", reply=dict[str, str], keyed=False),
    ("/readyz", "get"): Operation(
        summary="Whether requests can be answered: 200, or 503 and what is not ready",
        reply=Readiness,
        unready=True,
        keyed=False,
    ),
    ("/openapi.json", "get"): Operation(summary="This description", reply=JSONSchema, keyed=False),
}

ERRORS = {
    400: "The request is wrong; `param` and `code` say where and how.",
    401: "No key, a wrong key, or its quota is exhausted.",
    403: "The key is not allowed to do this.",
    404: "No such model, stored completion or request.",
    405: "The path has no such method.",
    413: "The body is too large.",
    429: "Over a rate limit; `retry-after` says how long to wait.",
    500: "The server's fault, or an upstream's broken answer.",
    503: "Overloaded, starting, stopping, or an upstream can't be reached.",
}

EVERY = (405,)
EVERY_KEYED = (401, 405, 500, 503)


# --- The document ----------------------------------------------------------------------------------------------------


@cache
def document() -> bytes:
    """The description as OpenAPI 3.1 in JSON; made once, when it is first asked for."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method] = described(path, operation, schemas)
    return json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Chatport", "version": __version__, "description": "Chat Completions on one port."},
            "servers": [{"url": "/", "description": "The server that gave this description."}],
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


class Schemas:
    """The schemas of every type that an operation names."""

    def __init__(self) -> None:
        types = [ErrorBody, ChatChunk, *named_types()]
        schemas, self.components = json.schema_components(types, ref_template="#/components/schemas/{name}")
        self._of = list(zip(types, schemas, strict=True))
        for schema in self.components.values():
            portable(schema)
        for struct in always_whole():
            self.components[struct.__name__]["required"] = always_sent(struct)

    def of(self, wanted: Any) -> dict[str, Any]:
        return next(schema for type_, schema in self._of if type_ == wanted)


def portable(schema: Any) -> None:
    """Rewrites what only Python's regular expressions know: the end of the text, `\\Z`, is `$` in ECMAScript's."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = schema["pattern"].replace("\\Z", "$")
        schema = schema.values()
    if isinstance(schema, Iterable) and not isinstance(schema, str):
        for inner in schema:
            portable(inner)


def always_whole() -> set[type[Struct]]:
    """The structs of replies, and of no request, that are written with their defaults."""
    replies = structs(inspect.multi_type_info([ErrorBody, ChatChunk, *(each.reply for each in OPERATIONS.values())]))
    requests = structs(inspect.multi_type_info([each.takes for each in OPERATIONS.values() if each.takes is not None]))
    return {struct for struct in replies - requests if not struct.__struct_config__.omit_defaults}


def structs(described: Any) -> set[type[Struct]]:
    """Every struct within msgspec's description of types. None of them holds itself."""
    if isinstance(described, inspect.StructType):
        return {described.cls, *structs([field.type for field in described.fields])}
    if isinstance(described, inspect.Type):
        return structs([getattr(described, name) for name in described.__struct_fields__])
    if isinstance(described, list | tuple):
        return set().union(*map(structs, described))
    return set()


def always_sent(struct: type[Struct]) -> list[str]:
    """The tag, and the fields that can't be left unset."""
    hints = get_type_hints(struct)
    tag = struct.__struct_config__.tag_field
    names = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    sent = [encoded for name, encoded in names if UnsetType not in get_args(hints[name])]
    return sent if tag is None else [tag, *sent]


def named_types() -> Iterator[Any]:
    for operation in OPERATIONS.values():
        yield operation.reply
        if operation.takes is not None:
            yield operation.takes


def described(path: str, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    """One operation object."""
    found: dict[str, Any] = {"summary": operation.summary, "parameters": list(parameters(path, operation))}
    if operation.takes is not None:
        found["requestBody"] = {"required": True, "content": as_json(schemas.of(operation.takes))}
    found["responses"] = dict(responses(operation, schemas))
    if operation.keyed:
        found["security"] = [{"key": []}]
    return found


def parameters(path: str, operation: Operation) -> Iterator[dict[str, Any]]:
    for segment in path.split("/"):
        if segment.startswith("{"):
            yield {"name": segment.strip("{}"), "in": "path", "required": True, "schema": {"type": "string"}}
    for given in operation.parameters:
        shown: dict[str, Any] = {"name": given.name, "in": given.place, "description": given.description}
        if given.style is not None:
            shown |= {"style": given.style, "explode": True}
        yield shown | {"schema": given.schema}


def responses(operation: Operation, schemas: Schemas) -> Iterator[tuple[str, dict[str, Any]]]:
    content = as_json(schemas.of(operation.reply))
    if operation.takes is ChatRequest:
        frames = "With `stream: true`: server-sent events, each a chunk in JSON, the last one `[DONE]`."
        content["text/event-stream"] = {"schema": schemas.of(ChatChunk) | {"description": frames}}
    yield "200", {"description": "Done.", "headers": headers(operation, 200), "content": content}
    for status in sorted({*operation.errors, *(EVERY_KEYED if operation.keyed else EVERY)}):
        error = as_json(schemas.of(ErrorBody))
        yield str(status), {"description": ERRORS[status], "headers": headers(operation, status), "content": error}
    if operation.unready:
        yield "503", {"description": "Not ready.", "headers": shown_headers(ALWAYS), "content": content}


def headers(operation: Operation, status: int) -> dict[str, Any]:
    """Those of an operation's replies with this status."""
    return shown_headers(each for each in (*operation.headers, *OF_ERRORS) if not each.only or status in each.only)


def shown_headers(given: Iterable[Header]) -> dict[str, Any]:
    return {each.name: {"description": each.description, "schema": {"type": each.type}} for each in given}


def as_json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
