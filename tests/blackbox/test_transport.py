"""contract.md §2, §3 and §11: paths and methods, keys, bodies, the order of the checks, headers, connections."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from support.asking import CREATE, HELLO, Api, check_completion, refusal, request_body
from support.serving import NOTICE_SECONDS, Server
from support.stream_rules import check_stream, read_stream

BODY = json.dumps(request_body({})).encode()
JSON = {"content-type": "application/json"}


def post(api: Api, content: bytes, **headers: str) -> httpx2.Response:
    return api.http.post(CREATE, content=content, headers=JSON | headers)


class TestPathsAndMethods:
    @pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/completions", "/v1/chat/completions/", "/x"])
    def test_an_unknown_path(self, api: Api, path: str) -> None:
        refused = refusal(api.http.get(path))
        assert refused[:4] == (404, "not_found", "not_found", None)

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("PUT", CREATE, {"GET", "POST"}),
            ("DELETE", CREATE, {"GET", "POST"}),
            ("PATCH", f"{CREATE}/chatcmpl-1", {"GET", "POST", "DELETE"}),
            ("POST", f"{CREATE}/chatcmpl-1/messages", {"GET"}),
            ("POST", "/v1/models", {"GET"}),
            ("DELETE", "/v1/models/echo", {"GET"}),
        ],
    )
    def test_another_method(self, api: Api, method: str, path: str, allowed: set[str]) -> None:
        response = api.http.request(method, path)
        assert refusal(response)[:4] == (405, "invalid_request_error", "method_not_supported", None)
        assert allowed <= {name.strip() for name in response.headers["allow"].split(",")}

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
    def test_the_programs_own_pages_need_no_key(self, api: Api, path: str) -> None:
        response = httpx2.get(api.server.url + path, trust_env=False)
        assert response.status_code == 200
        assert response.headers["x-request-id"].startswith("req_")

    def test_readiness_names_its_parts(self, api: Api, request: pytest.FixtureRequest) -> None:
        body = api.http.get("/readyz").json()
        assert body["ready"] is True
        elsewhere = "behind another" in request.node.name
        assert set(body["models"]) >= (set() if elsewhere else {"echo", "poem"})
        assert not elsewhere or body["models"] == {}, "what is somewhere else is no part of this server's readiness"

    def test_the_description_describes_the_endpoints(self, api: Api) -> None:
        described = api.http.get("/openapi.json").json()
        assert described["openapi"].startswith("3.")
        assert {CREATE, f"{CREATE}/{{id}}", "/v1/models"} <= set(described["paths"])


class TestKeys:
    @pytest.mark.parametrize(
        "authorization",
        [
            pytest.param(None, id="missing"),
            pytest.param("", id="empty"),
            pytest.param("Bearer", id="no-token"),
            pytest.param("Bearer sk-nobody-knows-this-key-0123456789", id="unknown"),
            pytest.param("Basic dXNlcjpwYXNz", id="other-scheme"),
            pytest.param("Bearer a b", id="two-words"),
            pytest.param("Bearer \xe9\xff", id="not-ascii"),
        ],
    )
    def test_refused(self, scripted_server: Server, authorization: str | None) -> None:
        headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
        response = httpx2.post(scripted_server.url + CREATE, json=request_body({}), headers=headers, trust_env=False)
        refused = refusal(response)
        assert refused[:4] == (401, "invalid_request_error", "invalid_api_key", "authorization")
        assert "nobody-knows-this" not in refused.message

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_the_scheme_in_any_case(self, api: Api, scheme: str) -> None:
        headers = {"authorization": f"{scheme} {api.server.key}"}
        assert api.http.get("/v1/models", headers=headers).status_code == 200

    @pytest.mark.parametrize("path", ["/v1/models", "/v1/models/echo", CREATE, f"{CREATE}/chatcmpl-1"])
    def test_every_endpoint_needs_one(self, scripted_server: Server, path: str) -> None:
        response = httpx2.get(scripted_server.url + path, trust_env=False)
        assert refusal(response).code == "invalid_api_key"

    def test_a_key_made_and_revoked_beside_the_server(self, scripted_server: Server) -> None:
        made = scripted_server.new_key("--name", "guest", "--models", "echo")
        guest = Api(scripted_server, made.key)
        try:
            guest.completion()
            assert refusal(guest.post({"model": "poem"}))[:4] == (403, "access_denied", "access_denied", None)
            listed = {model["id"] for model in guest.http.get("/v1/models").json()["data"]}
            assert listed == {"echo", "gpt-4", "gpt-3.5-turbo"}
            scripted_server.cli("keys", "revoke", made.id)
            deadline = time.monotonic() + NOTICE_SECONDS
            while guest.post({}).status_code == 200:
                assert time.monotonic() < deadline, "the server did not notice a revoked key"
            assert guest.refusal().code == "invalid_api_key"
        finally:
            guest.close()


BAD_BODIES = {
    "empty": b"",
    "not-json": b"hello",
    "cut-short": BODY[:-1],
    "trailing": BODY + b"x",
    "two": BODY + BODY,
    "array": b"[]",
    "string": b'"hello"',
    "number": b"5",
    "null": b"null",
    "nan": b'{"model":"echo","messages":[],"temperature":NaN}',
    "infinity": b'{"model":"echo","messages":[],"temperature":-Infinity}',
    "not-utf8": b'{"model":"echo","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "not-utf8-in-a-schema": BODY[:-1] + b',"functions":[{"name":"f","parameters":{"x":"\xff"}}]}',
    "lone-surrogate": b'{"model":"echo","messages":[{"role":"user","content":"\\ud800"}]}',
    "bom": b"\xef\xbb\xbf" + BODY,
    "utf16": BODY.decode().encode("utf-16"),
    "deep-arrays": b"[" * 100_000,
    "deep-objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep-field": BODY[:-1] + b',"metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    "single-quotes": b"{'model':'echo'}",
    "nul": b"\0" * 50,
}


class TestBodies:
    @pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
    def test_not_one_json_object(self, api: Api, body: bytes) -> None:
        assert refusal(post(api, body))[:4] == (400, "invalid_request_error", None, None)

    @pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"9" * 5000, b"1" + b"0" * 400 + b".5"])
    @pytest.mark.parametrize("field", [b"temperature", b"n", b"seed"])
    def test_huge_numbers(self, api: Api, number: bytes, field: bytes) -> None:
        assert refusal(post(api, BODY[:-1] + b',"' + field + b'":' + number + b"}")).status == 400

    def test_duplicate_keys_are_no_crash(self, api: Api) -> None:
        assert post(api, BODY[:-1] + b',"model":"poem"}').status_code in {200, 400}

    @pytest.mark.parametrize(
        "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
    )
    def test_the_content_type_wanted(self, api: Api, content_type: str) -> None:
        assert api.http.post(CREATE, content=BODY, headers={"content-type": content_type}).status_code == 200

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data"]
    )
    def test_another_content_type(self, api: Api, content_type: str) -> None:
        refused = refusal(api.http.post(CREATE, content=BODY, headers={"content-type": content_type}))
        assert refused[:4] == (400, "invalid_request_error", "unsupported_content_type", None)

    def test_no_content_type(self, api: Api) -> None:
        assert refusal(api.http.post(CREATE, content=BODY)).code == "unsupported_content_type"

    def test_chunked(self, api: Api) -> None:
        def pieces() -> Iterator[bytes]:
            yield from (BODY[i : i + 7] for i in range(0, len(BODY), 7))

        response = api.http.post(CREATE, content=pieces(), headers=JSON)
        assert response.status_code == 200
        check_completion(response.json())

    @pytest.mark.parametrize("chunked", [False, True])
    def test_large(self, api: Api, chunked: bool) -> None:
        """Within the limit, and faster than it is read."""
        body = json.dumps(request_body({"user": "x" * 3_500_000})).encode()
        response = api.http.post(CREATE, content=iter([body]) if chunked else body, headers=JSON)
        assert response.status_code == 200, response.text

    @pytest.mark.parametrize("chunked", [False, True])
    def test_too_large(self, api: Api, chunked: bool) -> None:
        body = json.dumps(request_body({"user": "x" * 4_200_000})).encode()
        refused = refusal(api.http.post(CREATE, content=iter([body]) if chunked else body, headers=JSON))
        assert refused[:4] == (413, "invalid_request_error", "request_too_large", None)

    @pytest.mark.parametrize("text", ["\0 between", "🌱🏳️‍🌈", "汉字", "\u2028\u2029", "\U0010ffff", 'a\\"\r\n\t'])
    def test_any_character(self, api: Api, text: str) -> None:
        messages = [{"role": "user", "content": text}]
        assert api.text(messages=messages) == text
        assert api.stream(messages=messages).content == text


class TestTheOrderOfTheChecks:
    """Each request is wrong in one way more than the one before; the earlier fault is told."""

    WRONG_KEY = {"authorization": "Bearer sk-wrong-wrong-wrong-wrong"}  # noqa: RUF012

    def test_path_before_all(self, api: Api) -> None:
        assert refusal(api.http.put("/v1/nothing", content=b"x", headers=self.WRONG_KEY)).status == 404

    def test_method_before_key(self, api: Api) -> None:
        assert refusal(api.http.put(CREATE, content=b"x", headers=self.WRONG_KEY)).status == 405

    def test_key_before_content_type(self, api: Api) -> None:
        headers = self.WRONG_KEY | {"content-type": "text/plain"}
        assert refusal(api.http.post(CREATE, content=b"x" * 5_000_000, headers=headers)).status == 401

    def test_content_type_before_size(self, api: Api) -> None:
        response = api.http.post(CREATE, content=b"x" * 5_000_000, headers={"content-type": "text/plain"})
        assert refusal(response).code == "unsupported_content_type"

    def test_size_before_json(self, api: Api) -> None:
        assert refusal(post(api, b"x" * 5_000_000)).status == 413

    def test_json_before_fields(self, api: Api) -> None:
        assert refusal(post(api, b'{"model":"nobody","temperature":9')).code is None

    def test_fields_before_model(self, api: Api) -> None:
        assert api.refusal(model="nobody", temperature=9).param == "temperature"

    def test_model_before_ability(self, api: Api) -> None:
        assert api.refusal(model="nobody", moderation={"model": "m"}).status == 404

    def test_the_backend_last(self, api: Api) -> None:
        assert api.refusal(model="down").status == 503
        assert api.refusal(model="down", temperature=9).status == 400


class TestHeaders:
    def test_of_a_completion(self, api: Api) -> None:
        headers = api.post({}).headers
        assert headers["openai-version"] == "2020-10-01"
        assert int(headers["openai-processing-ms"]) >= 0
        assert headers["content-type"].split(";")[0] == "application/json"

    def test_of_a_stream(self, api: Api) -> None:
        headers = api.stream().headers
        assert headers["cache-control"] == "no-cache"
        assert headers["openai-version"] == "2020-10-01"
        assert headers["x-request-id"].startswith("req_")
        assert "content-encoding" not in headers

    def test_the_request_id_is_unique(self, api: Api) -> None:
        ids = [api.post(fields).headers["x-request-id"] for fields in ({}, {}, {"temperature": 9}, {"stream": True})]
        assert len(set(ids)) == 4

    def test_no_limits_no_limit_headers(self, api: Api) -> None:
        assert not [name for name in api.post({}).headers if name.startswith("x-ratelimit")]

    @pytest.mark.parametrize("model", ["busy", "down"])
    def test_a_known_wait_is_told(self, api: Api, model: str) -> None:
        headers = api.post({"model": model}).headers
        assert int(headers["retry-after"]) >= 1
        assert int(headers["retry-after-ms"]) >= 1

    def test_a_challenge_with_401(self, scripted_server: Server) -> None:
        response = httpx2.get(scripted_server.url + "/v1/models", trust_env=False)
        assert response.headers["www-authenticate"] == "Bearer"

    def test_what_sdks_send_along_is_tolerated(self, api: Api) -> None:
        headers = {
            "x-stainless-retry-count": "1",
            "x-stainless-read-timeout": "600",
            "openai-organization": "org-1",
            "openai-project": "proj_1",
            "user-agent": "OpenAI/Python 3.54.0",
            "x-client-request-id": "mine",
            "accept": "application/json",
        }
        response = api.http.post(CREATE, json=request_body({"stream": True}), headers=headers)
        assert response.headers["content-type"].startswith("text/event-stream")


class TestOtherOrigins:
    def test_a_page_of_a_listed_origin_may_call(self, api: Api) -> None:
        headers = {
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-stainless-os",
        }
        preflight = httpx2.options(api.server.url + CREATE, headers=headers, trust_env=False)
        assert preflight.status_code in {200, 204}
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert {"authorization", "content-type", "x-stainless-os"} <= {
            name.strip() for name in preflight.headers["access-control-allow-headers"].lower().split(",")
        }
        reply = api.post({}, origin="https://app.example")
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-request-id" in reply.headers["access-control-expose-headers"].lower()

    def test_another_origin_may_not(self, api: Api) -> None:
        assert "access-control-allow-origin" not in api.post({}, origin="https://evil.example").headers


class TestIdempotency:
    def test_the_same_reply_again(self, api: Api) -> None:
        first, second = (api.post({}, idempotency_key="same-reply") for _ in range(2))
        assert first.json() == second.json()
        assert first.headers["x-request-id"] != second.headers["x-request-id"]

    def test_the_same_stream_again(self, api: Api) -> None:
        first, second = (api.post({"stream": True}, idempotency_key="same-stream") for _ in range(2))
        assert first.content == second.content
        check_stream(read_stream(second.content))
        assert second.headers["content-type"].startswith("text/event-stream")
        assert second.headers["content-length"] == str(len(second.content))

    def test_another_body(self, api: Api) -> None:
        api.post({}, idempotency_key="conflict")
        refused = refusal(api.post({"n": 2}, idempotency_key="conflict"))
        assert refused[:4] == (400, "invalid_request_error", "idempotency_conflict", None)

    def test_a_repeat_joins_the_one_that_runs(self, api: Api) -> None:
        replies: list[str] = []

        def ask() -> None:
            replies.append(api.post({"model": "slow"}, idempotency_key="joined").json()["id"])

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(replies) == 3
        assert len(set(replies)) == 1

    def test_another_keys_is_another(self, api: Api) -> None:
        other = Api(api.server, api.server.admin_key)
        try:
            ids = {each.post({}, idempotency_key="two-keys").json()["id"] for each in (api, other)}
        finally:
            other.close()
        assert len(ids) == 2

    @pytest.mark.parametrize("key", ["", "k" * 256])
    def test_its_length(self, api: Api, key: str) -> None:
        assert refusal(api.post({}, idempotency_key=key)).status == 400

    def test_a_refusal_is_not_kept(self, api: Api) -> None:
        assert api.post({"temperature": 9}, idempotency_key="refused-first").status_code == 400
        assert api.post({}, idempotency_key="refused-first").status_code == 200


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head_and_body(server: Server, fields: dict[str, Any]) -> bytes:
    body = json.dumps(request_body(fields)).encode()
    head = (
        f"POST {CREATE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class TestConnections:
    def test_one_serves_many_requests(self, scripted_server: Server) -> None:
        """After success, an error, a stream and an unread 404 alike: one socket, each answer its own."""
        with httpx2.Client(
            base_url=scripted_server.url,
            headers={"authorization": f"Bearer {scripted_server.key}"},
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
            trust_env=False,
        ) as http:
            streams = []
            for fields in ({}, {"temperature": 9}, {"stream": True}, {"model": "nobody"}, {"stream": True}, {}):
                response = http.post(CREATE, json=request_body(fields))
                streams.append(response.extensions["network_stream"])
            assert http.get("/v1/nothing").status_code == 404
        assert len({id(stream) for stream in streams}) == 1

    def test_the_body_ends_at_done(self, scripted_server: Server) -> None:
        with connect(scripted_server) as sock:
            sock.sendall(head_and_body(scripted_server, {"stream": True}))
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                piece = sock.recv(65536)
                assert piece, "closed before the end of the chunked body"
                received += piece
            assert received.rstrip().rsplit(b"data: ", 1)[1].startswith(b"[DONE]\n\n")
            sock.sendall(head_and_body(scripted_server, {}))
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_client_that_leaves_harms_nobody(self, scripted_server: Server, api: Api, stream: bool) -> None:
        for _ in range(5):
            with connect(scripted_server) as sock:
                sock.sendall(head_and_body(scripted_server, {"model": "slow", "stream": stream}))
                if stream:
                    assert b"200" in sock.recv(4096)
        api.completion()
        assert scripted_server.process.poll() is None
        assert "Traceback" not in scripted_server.log.read_text()

    def test_frames_leave_as_they_are_made(self, api: Api) -> None:
        """The first text is here while the model still has most of its time to go."""
        with api.http.stream("POST", CREATE, json=request_body({"model": "slow", "stream": True})) as response:
            lines = (line for line in response.iter_lines() if '"tick ' in line)
            next(lines)
            assert response.num_bytes_downloaded < 1500


def test_the_body_is_never_echoed(api: Api) -> None:
    secret = "a-secret-that-must-not-come-back"
    for fields in ({"messages": [{"role": "user", "content": secret}], "n": 0}, {"model": "down", "user": secret}):
        assert secret not in api.post(fields).text


def test_several_turns(api: Api) -> None:
    turns: list[dict[str, Any]] = [*HELLO]
    for text in ("first", "second", "third"):
        message = api.completion(messages=turns)["choices"][0]["message"]
        turns += [message, {"role": "user", "content": text}]
    assert api.text(messages=turns) == "third"
