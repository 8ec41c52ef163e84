"""What ten providers send, each with its habits: streams, whole replies and errors, byte for byte.

Written after each provider's documentation and what its API sends as of 2026, and shortened: fields, nulls, order and
comments are the provider's, texts and counts are ours. A case is called PROVIDER.WHAT.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

NONE = ',"finish_reason":null'
STOP = ',"finish_reason":"stop"'


class Case(NamedTuple):
    """One request's answer: the frames of its stream, and the body of its reply when it is whole."""

    frames: list[str]
    reply: dict[str, Any]

    @property
    def stream(self) -> bytes:
        lines = [frame if frame.startswith(":") else f"data: {frame}" for frame in self.frames]
        return "".join(f"{line}\n\n" for line in [*lines, "data: [DONE]"]).encode()

    @property
    def whole(self) -> bytes:
        return json.dumps(self.reply, ensure_ascii=False).encode()


class Failure(NamedTuple):
    """An error: its status line and body."""

    status: str
    body: str


def delta(text: str, rest: str = "", after: str = "") -> str:
    """A frame with one choice; `rest` is what stands behind its delta, `after` what stands behind the choices."""
    head = '{"id":"1","object":"chat.completion.chunk","created":1,"model":"far","choices":'
    return f'{head}[{{"index":0,"delta":{{{text}}}{rest}}}]{after}}}'


def last(usage: str, after: str = "") -> str:
    """The frame with the usage and no choice."""
    return f'{{"id":"1","object":"chat.completion.chunk","created":1,"model":"far","choices":[],{usage}{after}}}'


def reply(message: dict[str, Any], finish: str, usage: str, **more: Any) -> dict[str, Any]:
    """A whole reply; `usage` is written as in a frame."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    head: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 1, "model": "far", "choices": [choice]}
    said: dict[str, Any] = json.loads(f"{{{usage}}}")
    return head | said | more


def called(identity: str | None, name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    """A call of a whole reply, with what the provider says of it beside its function."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}, "id": identity, **more}


USAGE = '"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}'
OPENAI_USAGE = (
    '"usage":{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,"prompt_tokens_details":'
    '{"cached_tokens":1920,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":192,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
DEEPSEEK_USAGE = (
    '"usage":{"prompt_tokens":16,"completion_tokens":10,"total_tokens":26,"prompt_tokens_details":{"cached_tokens":12},'
    '"completion_tokens_details":{"reasoning_tokens":4},"prompt_cache_hit_tokens":12,"prompt_cache_miss_tokens":4}'
)
OLD_DEEPSEEK_USAGE = USAGE[:-1] + ',"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":1}'
MOONSHOT_USAGE = USAGE[:-1] + ',"cached_tokens":6}'
OPENROUTER_USAGE = (
    USAGE[:-1] + ',"cost":0.00014,"is_byok":false,"prompt_tokens_details":{"cached_tokens":0},'
    '"cost_details":{"upstream_inference_cost":null},"completion_tokens_details":{"reasoning_tokens":1}}'
)
GROQ_USAGE = (
    '"usage":{"queue_time":0.04,"prompt_tokens":9,"prompt_time":0.001,"completion_tokens":3,"completion_time":0.01,'
    '"total_tokens":12,"total_time":0.011,"completion_tokens_details":{"reasoning_tokens":2}}'
)

CITATION = {
    "type": "url_citation",
    "url_citation": {"start_index": 0, "end_index": 2, "url": "https://example.org/a", "title": "春 & co."},
}
AUDIO = {"id": "audio_1", "data": "AQIDBAUG", "expires_at": 1_770_003_600, "transcript": "Hi there"}
LOGPROBS = '{"content":[{"token":"Hi","logprob":-0.25,"bytes":[72,105],"top_logprobs":[]}],"refusal":null}'
OPENAI_NULLS: dict[str, Any] = {"refusal": None, "annotations": []}
VLLM_NULLS: dict[str, Any] = {"refusal": None, "annotations": None, "audio": None, "function_call": None}

OPENAI = {
    "openai.text": Case(
        [
            delta('"role":"assistant","content":"","refusal":null', ',"logprobs":null' + NONE, ',"usage":null'),
            delta('"content":"Hi"', f',"logprobs":{LOGPROBS}{NONE}', ',"usage":null,"obfuscation":"x"'),
            delta("", ',"logprobs":null' + STOP, ',"usage":null'),
            last(OPENAI_USAGE, ',"obfuscation":""'),
        ],
        reply({"content": "Hi", **OPENAI_NULLS}, "stop", OPENAI_USAGE, service_tier="default", system_fingerprint="fp"),
    ),
    "openai.tools": Case(
        [
            delta(
                '"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_a","type":"function","function":'
                '{"name":"weather","arguments":""}}],"refusal":null',
                ',"logprobs":null' + NONE,
            ),
            delta('"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\":"}}]', NONE),
            delta('"tool_calls":[{"index":0,"function":{"arguments":"\\"北京\\"}"}}]', NONE),
            delta(
                '"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"time","arguments":""}}]',
                NONE,
            ),
            delta('"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]', NONE),
            delta("", ',"logprobs":null,"finish_reason":"tool_calls"'),
            last(OPENAI_USAGE),
        ],
        reply(
            {
                "content": None,
                "tool_calls": [called("call_a", "weather", '{"city":"北京"}'), called("call_b", "time", "{}")],
                **OPENAI_NULLS,
            },
            "tool_calls",
            OPENAI_USAGE,
        ),
    ),
    "openai.audio": Case(
        [
            delta('"role":"assistant","refusal":null,"audio":{"id":"audio_1","transcript":"Hi"}', NONE),
            delta('"audio":{"id":"audio_1","transcript":" there"}', NONE),
            delta('"audio":{"id":"audio_1","data":"AQID"}', NONE),
            delta('"audio":{"id":"audio_1","data":"BAUG"}', NONE),
            delta('"audio":{"id":"audio_1","expires_at":1770003600}', NONE),
            delta("", STOP),
            last(USAGE),
        ],
        reply({"content": None, "refusal": None, "annotations": [], "audio": AUDIO}, "stop", USAGE),
    ),
    "openai.search": Case(
        [
            delta('"role":"assistant","content":"","refusal":null', NONE),
            delta('"content":"Hi"', NONE),
            delta(f'"annotations":[{json.dumps(CITATION)}]', STOP),
            last(USAGE),
        ],
        reply({"content": "Hi", "refusal": None, "annotations": [CITATION]}, "stop", USAGE),
    ),
}

CHINA = {
    "deepseek.text": Case(
        [
            delta('"role":"assistant","content":null,"reasoning_content":"h"', ',"logprobs":null' + NONE),
            delta('"content":null,"reasoning_content":"m"', NONE),
            delta('"content":"Hi","reasoning_content":null', NONE),
            delta('"content":"","reasoning_content":null', STOP, "," + DEEPSEEK_USAGE),
        ],
        reply({"content": "Hi", "reasoning_content": "hm"}, "stop", DEEPSEEK_USAGE),
    ),
    "deepseek.tools": Case(
        [
            delta('"role":"assistant","content":""', NONE),
            delta(
                '"tool_calls":[{"index":0,"id":"call_0_x","type":"function","function":{"name":"weather","arguments":""}}]',
                NONE,
            ),
            delta('"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\": \\"北京\\"}"}}]', NONE),
            delta('"content":""', ',"finish_reason":"tool_calls"', "," + OLD_DEEPSEEK_USAGE),
        ],
        reply(
            {"content": "", "tool_calls": [called("call_0_x", "weather", '{"city": "北京"}', index=0)]},
            "tool_calls",
            OLD_DEEPSEEK_USAGE,
        ),
    ),
    "moonshot.text": Case(
        [
            delta('"role":"assistant","content":""', NONE),
            delta('"content":"Hi"', NONE),
            delta("", f"{STOP},{MOONSHOT_USAGE}"),
        ],
        reply({"content": "Hi"}, "stop", MOONSHOT_USAGE),
    ),
    "moonshot.tools": Case(
        [
            delta('"role":"assistant","content":""', NONE),
            delta(
                '"tool_calls":[{"index":0,"id":"weather:0","type":"function","function":{"name":"weather","arguments":""}}]',
                NONE,
            ),
            delta('"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]', NONE),
            delta("", f',"finish_reason":"tool_calls",{MOONSHOT_USAGE}'),
        ],
        reply({"content": "", "tool_calls": [called("weather:0", "weather", "{}")]}, "tool_calls", MOONSHOT_USAGE),
    ),
    "zhipu.text": Case(
        [
            delta('"role":"assistant","reasoning_content":"hm"'),
            delta('"role":"assistant","content":"Hi"'),
            delta('"role":"assistant","content":""', ',"finish_reason":"sensitive"', "," + USAGE),
        ],
        reply({"content": "Hi", "reasoning_content": "hm"}, "sensitive", USAGE, request_id="1"),
    ),
    "zhipu.tools": Case(
        [
            delta(
                '"role":"assistant","tool_calls":[{"id":"call_9","index":0,"type":"function","function":'
                '{"name":"weather","arguments":"{\\"city\\": \\"北京\\"}"}}]'
            ),
            delta('"role":"assistant","content":""', ',"finish_reason":"tool_calls"', "," + USAGE),
        ],
        reply({"tool_calls": [called("call_9", "weather", '{"city": "北京"}', index=0)]}, "tool_calls", USAGE),
    ),
}

HOSTED = {
    "mistral.text": Case(
        [
            delta('"role":"assistant","content":""', NONE),
            delta('"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]', NONE),
            delta('"content":[{"type":"text","text":"Hi"}]', NONE),
            delta('"content":""', ',"finish_reason":"model_length"', "," + USAGE),
        ],
        reply(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "Hi"},
                ],
                "tool_calls": None,
            },
            "model_length",
            USAGE,
        ),
    ),
    "mistral.tools": Case(
        [
            delta('"role":"assistant","content":""', NONE),
            delta(
                '"tool_calls":[{"id":"D681PevKs","function":{"name":"weather","arguments":"{}"},"index":0}]',
                ',"finish_reason":"tool_calls"',
                "," + USAGE,
            ),
        ],
        reply({"content": "", "tool_calls": [called("D681PevKs", "weather", "{}", index=0)]}, "tool_calls", USAGE),
    ),
    "groq.text": Case(
        [
            delta('"role":"assistant","content":""', ',"logprobs":null' + NONE, ',"x_groq":{"id":"req_1","seed":1}'),
            delta('"reasoning":"hm","channel":"analysis"', ',"logprobs":null' + NONE),
            delta('"content":"Hi"', ',"logprobs":null' + NONE),
            delta("", ',"logprobs":null' + STOP, f',"x_groq":{{"id":"req_1",{GROQ_USAGE}}}'),
            last(GROQ_USAGE, ',"service_tier":"on_demand"'),
        ],
        reply({"content": "Hi", "reasoning": "hm"}, "stop", GROQ_USAGE, service_tier="on_demand", x_groq={"id": "1"}),
    ),
    "groq.tools": Case(
        [
            delta('"role":"assistant","content":null', NONE, ',"x_groq":{"id":"req_1"}'),
            delta(
                '"tool_calls":[{"id":"fc_1","type":"function","function":{"name":"weather","arguments":"{}"},"index":0},'
                '{"id":"fc_2","type":"function","function":{"name":"time","arguments":"{}"},"index":1}]',
                NONE,
            ),
            delta("", ',"finish_reason":"tool_calls"', f',"x_groq":{{"id":"req_1",{GROQ_USAGE}}}'),
            last(GROQ_USAGE),
        ],
        reply(
            {"tool_calls": [called("fc_1", "weather", "{}"), called("fc_2", "time", "{}")]}, "tool_calls", GROQ_USAGE
        ),
    ),
    "openrouter.text": Case(
        [
            ": OPENROUTER PROCESSING",
            delta(
                '"role":"assistant","content":"","reasoning":"hm","reasoning_details":[{"type":"reasoning.text"}]', NONE
            ),
            delta('"role":"assistant","content":"Hi"', NONE + ',"native_finish_reason":null', ',"provider":"P"'),
            delta(f'"role":"assistant","content":"","annotations":[{json.dumps(CITATION)}]', NONE),
            delta('"role":"assistant","content":""', STOP + ',"native_finish_reason":"stop","logprobs":null'),
            delta('"role":"assistant","content":""', NONE, "," + OPENROUTER_USAGE),
        ],
        reply(
            {"content": "Hi", "refusal": None, "reasoning": "hm", "annotations": [CITATION]},
            "stop",
            OPENROUTER_USAGE,
            provider="P",
        ),
    ),
    "openrouter.tools": Case(
        [
            ": OPENROUTER PROCESSING",
            delta(
                '"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"toolu_1","type":"function","function":'
                '{"name":"weather","arguments":""}}]',
                NONE,
            ),
            delta(
                '"role":"assistant","content":null,"tool_calls":[{"index":0,"type":"function","function":'
                '{"arguments":"{}"}}]',
                NONE,
            ),
            delta('"role":"assistant","content":""', ',"finish_reason":"tool_calls","native_finish_reason":"tool_use"'),
            delta('"role":"assistant","content":""', NONE, "," + OPENROUTER_USAGE),
        ],
        reply(
            {
                "content": "",
                "refusal": None,
                "reasoning": None,
                "tool_calls": [called("toolu_1", "weather", "{}", index=0)],
            },
            "tool_calls",
            OPENROUTER_USAGE,
        ),
    ),
}

LOCAL = {
    "vllm.text": Case(
        [
            delta('"role":"assistant","content":""', ',"logprobs":null' + NONE, ',"prompt_token_ids":null'),
            delta('"reasoning_content":"hm"', ',"logprobs":null' + NONE + ',"token_ids":null'),
            delta('"content":"Hi"', ',"logprobs":null' + NONE + ',"token_ids":null'),
            delta('"content":""', ',"logprobs":null' + STOP + ',"stop_reason":null,"token_ids":null'),
            last(USAGE),
        ],
        reply(
            {"content": "Hi", **VLLM_NULLS, "tool_calls": [], "reasoning_content": "hm"},
            "stop",
            USAGE[:-1] + ',"prompt_tokens_details":null}',
            prompt_logprobs=None,
        ),
    ),
    "vllm.tools": Case(
        [
            delta('"role":"assistant","content":""', ',"logprobs":null' + NONE, ',"prompt_token_ids":null'),
            delta('"tool_calls":[{"id":"call_1","type":"function","index":0,"function":{"name":"f"}}]', NONE),
            delta('"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\""}}]', NONE),
            delta('"tool_calls":[{"index":0,"function":{"arguments":": 1}"}}]', NONE),
            delta('"content":""', ',"finish_reason":"tool_calls","stop_reason":null'),
            last(USAGE),
        ],
        reply(
            {
                "content": None,
                **VLLM_NULLS,
                "tool_calls": [called("call_1", "f", '{"a": 1}')],
                "reasoning_content": None,
            },
            "tool_calls",
            USAGE,
        ),
    ),
    "ollama.text": Case(
        [
            delta('"role":"assistant","content":"","reasoning":"hm"', NONE),
            delta('"role":"assistant","content":"Hi"', NONE),
            delta('"role":"assistant","content":""', STOP),
            last(USAGE),
        ],
        reply({"content": "Hi", "reasoning": "hm"}, "stop", USAGE),
    ),
    "ollama.tools": Case(
        [
            delta(
                '"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]',
                NONE,
            ),
            delta('"role":"assistant","content":""', ',"finish_reason":"tool_calls"'),
            last(USAGE),
        ],
        reply({"content": "", "tool_calls": [called(None, "f", {"a": 1})]}, "tool_calls", USAGE),
    ),
    "llama-server.text": Case(
        [
            delta('"role":"assistant","content":null', NONE),
            delta('"reasoning_content":"hm"', NONE),
            delta('"content":"Hi"', NONE),
            delta("", STOP),
            last(USAGE, ',"timings":{"prompt_n":1}'),
        ],
        reply({"reasoning_content": "hm", "content": "Hi"}, "stop", USAGE, timings={"prompt_n": 1}),
    ),
    "llama-server.tools": Case(
        [
            delta('"role":"assistant","content":null', NONE),
            delta(
                '"tool_calls":[{"index":0,"id":"x1","type":"function","function":{"name":"f","arguments":"{"}}]', NONE
            ),
            delta('"tool_calls":[{"index":0,"function":{"arguments":"}"}}]', NONE),
            delta("", ',"finish_reason":"tool_calls"'),
            last(USAGE),
        ],
        reply({"content": None, "tool_calls": [called("x1", "f", "{}")]}, "tool_calls", USAGE),
    ),
}

CASES: dict[str, Case] = OPENAI | CHINA | HOSTED | LOCAL

FAILURES: dict[str, Failure] = {
    "openai": Failure(
        "429 Too Many Requests",
        '{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}',
    ),
    "deepseek": Failure(
        "402 Payment Required",
        '{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,'
        '"code":"invalid_request_error"}}',
    ),
    "moonshot": Failure(
        "429 Too Many Requests",
        '{"error":{"message":"The engine is currently overloaded","type":"engine_overloaded_error"}}',
    ),
    "zhipu": Failure("400 Bad Request", '{"error":{"code":"1210","message":"API 调用参数有误，请检查文档。"}}'),
    "mistral": Failure(
        "422 Unprocessable Entity",
        '{"object":"error","message":{"detail":[{"type":"greater_than_equal","loc":["body","max_tokens"],"msg":"Input '
        'should be greater than or equal to 0"}]},"type":"invalid_request_error","param":null,"code":null}',
    ),
    "groq": Failure(
        "400 Bad Request",
        '{"error":{"message":"Failed to call a function.","type":"invalid_request_error","code":"tool_use_failed",'
        '"failed_generation":"<f>"}}',
    ),
    "openrouter": Failure(
        "503 Service Unavailable",
        '{"error":{"message":"No instances available","code":503,"metadata":{}},"user_id":"user_1"}',
    ),
    "vllm": Failure(
        "400 Bad Request",
        '{"object":"error","message":"This model\'s maximum context length is 4096 tokens.","type":"BadRequestError",'
        '"param":null,"code":400}',
    ),
    "ollama": Failure(
        "404 Not Found",
        '{"error":{"message":"model \\"far\\" not found","type":"api_error","param":null,"code":null}}',
    ),
    "llama-server": Failure(
        "500 Internal Server Error", '{"error":{"code":500,"message":"slot failed","type":"server_error"}}'
    ),
}
"""By provider."""
