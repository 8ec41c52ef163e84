"""The account over a real port: what is posted, what a key sees of it, how a budget ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from support.asking import Api
from support.serving import NewKey, Server, serving

CONFIG = """
[[models]]
id = "poem"
backend = "scripted"
reply = ["Roses ", "are ", "red, ", "violets ", "are ", "blue."]
price = { prompt = 1000, completion = 2000 }

[ledger]
budget_wait = 0.5
"""
POEM: dict[str, Any] = {"model": "poem", "messages": [{"role": "user", "content": "Hi"}]}
COST = 2 * 1_000_000 + 6 * 2_000_000
"""Nano-dollars: the prompt has 2 tokens, the answer 6."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("account"), CONFIG) as running:
        yield running


Budgeted = Callable[[str], tuple[NewKey, Api]]


@pytest.fixture
def budgeted(server: Server) -> Iterator[Budgeted]:
    """Makes keys with a budget that the server knows of."""
    opened: list[Api] = []

    def make(amount: str) -> tuple[NewKey, Api]:
        key, api = with_budget(server, amount)
        opened.append(api)
        return key, api

    yield make
    for api in opened:
        api.close()


def with_budget(server: Server, amount: str) -> tuple[NewKey, Api]:
    key = server.new_key("--name", "paying", "--owner", "alice")
    server.cli("budgets", "create", f"key:{key.id}", amount)
    api = Api(server, key.key)
    deadline = time.monotonic() + 10
    while not api.http.get("/v1/key").json()["budgets"]:
        assert time.monotonic() < deadline, "the server did not notice a new budget"
        time.sleep(0.05)
    return key, api


def test_a_request_is_posted_at_its_price_and_the_key_sees_it(server: Server, budgeted: Budgeted) -> None:
    key, api = budgeted("1usd/month")
    reply = api.post(POEM)
    assert reply.status_code == 200
    mine = api.http.get("/v1/key").json()
    assert (mine["object"], mine["id"], mine["name"], mine["owner"]) == ("key", key.id, "paying", "alice")
    [budget] = mine["budgets"]
    assert (budget["posted"], budget["held"], budget["remaining"]) == (COST, 0, 10**9 - COST)
    assert (mine["today"]["requests"], mine["month"]["charge_nano"]) == (1, COST)
    admin = {"authorization": f"Bearer {server.admin_key}"}
    path = f"{server.url}/admin/requests/{reply.headers['x-request-id']}"
    story = httpx2.get(path, headers=admin, trust_env=False).json()
    assert (story["key_id"], story["charge_nano"], story["ending"], story["state"]) == (
        key.id,
        COST,
        "complete",
        "posted",
    )
    assert httpx2.get(path, headers={"authorization": f"Bearer {key.key}"}, trust_env=False).status_code == 403
    assert json.loads(server.cli("explain", story["id"], "--json"))["charge_nano"] == COST
    usage = httpx2.get(f"{server.url}/admin/usage?by=owner&since=1d", headers=admin, trust_env=False).json()
    assert [one["group"] for one in usage["data"]] == ["alice"]


def test_a_key_sees_nothing_of_another(server: Server, budgeted: Budgeted) -> None:
    """Not even where both have one owner; what concerns all is an admin's."""
    key, api = budgeted("1usd/month")
    other, their = budgeted("2usd/month")
    api.completion(**POEM)
    theirs = their.http.get("/v1/key")
    assert (theirs.json()["today"], theirs.json()["month"]) == (None, None)
    assert [budget["subject"] for budget in theirs.json()["budgets"]] == [other.id]
    assert key.id not in theirs.text
    for path in ("/admin/usage?by=key", "/admin/audit"):
        assert httpx2.get(f"{server.url}{path}", headers=api.http.headers, trust_env=False).status_code == 403


@pytest.mark.parametrize("query", ["by=planet", "since=yesterday"])
def test_a_bad_question_is_a_400_that_names_it(server: Server, query: str) -> None:
    admin = {"authorization": f"Bearer {server.admin_key}"}
    reply = httpx2.get(f"{server.url}/admin/usage?{query}", headers=admin, trust_env=False)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_the_audit_log_page_by_page(server: Server) -> None:
    admin = {"authorization": f"Bearer {server.admin_key}"}
    made = server.new_key("--name", "audited")

    def page(query: str) -> Any:
        return httpx2.get(f"{server.url}/admin/audit?{query}", headers=admin, trust_env=False).json()

    [newest] = page("limit=1")["data"]
    assert (newest["action"], newest["subject"], newest["after"]["name"]) == ("key.create", made.id, "audited")
    [older] = page(f"limit=1&before={newest['sequence']}")["data"]
    assert older["sequence"] < newest["sequence"]
    assert page("limit=0")["error"]["param"] == "limit"
    assert page("before=x")["error"]["param"] == "before"


def test_an_unknown_request_is_a_404(server: Server) -> None:
    admin = {"authorization": f"Bearer {server.admin_key}"}
    reply = httpx2.get(f"{server.url}/admin/requests/req_nobody", headers=admin, trust_env=False)
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found")


def test_an_exhausted_budget_is_a_401_that_the_sdk_does_not_repeat(server: Server, budgeted: Budgeted) -> None:
    key, api = budgeted("0.016usd")
    assert api.completion(**POEM)["usage"]["completion_tokens"] == 6
    direct = openai.DefaultHttpxClient(trust_env=False)
    told = "Quota exhausted: the budget of this API key"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=key.key, http_client=direct) as client,
        pytest.raises(openai.AuthenticationError, match=told) as caught,
    ):
        client.chat.completions.create(model="poem", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "insufficient_quota"
    assert api.refusal(**POEM).type == "insufficient_quota"
    # The order of the checks: a body that is wrong is told first.
    assert api.refusal(**{**POEM, "temperature": 9}).status == 400


def test_each_end_user_of_a_key_has_a_budget_for_himself(server: Server) -> None:
    key = server.new_key("--name", "shop")
    made = json.loads(server.cli("budgets", "create", f"user:{key.id}/*", "10tok", "--json"))
    api = Api(server, key.key)
    try:
        deadline = time.monotonic() + 10
        while api.post({**POEM, "user": "probe"}).status_code == 200:
            assert time.monotonic() < deadline, "the server did not notice a new budget"
        assert api.post({**POEM, "user": "alice"}).status_code == 200
        refused = api.refusal(**{**POEM, "user": "alice", "messages": [{"role": "user", "content": "a b c d"}]})
        assert (refused.status, refused.type) == (401, "insufficient_quota")
        assert "this end user leaves too little" in refused.message
        assert api.post({**POEM, "safety_identifier": "bob"}).status_code == 200
        assert api.post(POEM).status_code == 200
    finally:
        api.close()
    parts = json.loads(server.cli("budgets", "list", "--of", made["id"], "--json"))
    assert {part["end_user"]: part["posted"] for part in parts} | {"probe": 0} == {"alice": 8, "bob": 8, "probe": 0}


def test_a_start_settles_what_a_killed_server_has_left(tmp_path: Path) -> None:
    """At once: no lease of 30 s has to pass."""
    config = CONFIG.replace('"blue."]', '"blue."]\ndelay_ms = 300')
    request_id = ""
    with suppress(AssertionError), serving(tmp_path, config) as server:  # which ends with -9
        api = Api(server)
        with api.http.stream("POST", "/v1/chat/completions", json={**POEM, "stream": True}) as reply:
            lines = reply.iter_lines()  # kept: without it the stream would be closed, and its client gone
            next(lines)
            server.process.kill()
            server.process.wait()
        api.close()
        request_id = reply.headers["x-request-id"]
    with serving(tmp_path, config) as server:
        story = json.loads(server.cli("explain", request_id, "--json"))
        assert (story["state"], story["ending"]) == ("posted", "crash")


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_left_limits_the_answer_and_the_reply_says_so(budgeted: Budgeted, stream: bool) -> None:
    _, api = budgeted("6tok")
    if stream:
        streamed = api.stream(**POEM)
        choice, headers = streamed.choices[0], streamed.headers
    else:
        reply = api.post(POEM)
        choice, headers = reply.json()["choices"][0], reply.headers
    assert choice["finish_reason"] == "length"
    assert headers["x-chatport-clamped"] == "4"
    [budget] = api.http.get("/v1/key").json()["budgets"]
    assert (budget["posted"], budget["held"], budget["remaining"]) == (6, 0, 0)


def test_the_account_is_right_while_the_server_runs(server: Server) -> None:
    assert "The account is right." in server.cli("ledger", "verify")
    lines = [json.loads(line) for line in server.cli("ledger", "export").splitlines()]
    assert all(line["state"] == "posted" for line in lines)


def story_of(server: Server, reply: httpx2.Response) -> Any:
    return json.loads(server.cli("explain", reply.headers["x-request-id"], "--json"))


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_said_is_kept_where_the_key_says_so(server: Server, stream: bool) -> None:
    key = server.new_key("--keep-content")
    api = Api(server, key.key)
    try:
        reply = api.post({**POEM, "stream": stream})
        reply.read()
        content = story_of(server, reply)["content"]
    finally:
        api.close()
    assert content["request"]["messages"] == POEM["messages"]
    assert content["reply"]["choices"][0]["message"]["content"] == "Roses are red, violets are blue."
    assert content["expires_at"] > time.time() + 29 * 86_400


def test_nothing_is_kept_unasked(server: Server) -> None:
    api = Api(server)
    try:
        assert story_of(server, api.post(POEM))["content"] is None
    finally:
        api.close()
