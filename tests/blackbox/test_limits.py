"""Limits on the real program: what its headers say, what it refuses, and what the official SDKs make of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI, RateLimitError
from openai.types.chat import ChatCompletionMessageParam

from support.asking import Api, refusal
from support.javascript import run_tests
from support.serving import Server, serving

SAID: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
DURATION = re.compile(r"\d+ms|(\d+h)?(\d+m)?\d+s")

CONFIG = """
[[models]]
id = "echo"
backend = "scripted"
aliases = ["gpt-4"]

[[models]]
id = "slow"
backend = "scripted"
reply = ["tick ", "tock "]
delay_ms = 300

[[limits]]
scope = "key:*"
rpm = 1000
tpm = 100000

[[limits]]
scope = "owner:watched"
rpm = 1
mode = "report"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("limits"), CONFIG) as running:
        yield running


class House:
    """The server, and whoever asks it; connections are closed when a test is over."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.closing = ExitStack()

    def api(self, key: str | None = None) -> Api:
        api = Api(self.server, key)
        self.closing.callback(api.close)
        return api

    def with_key(self, *options: str) -> Api:
        """Asks with a new key."""
        return self.api(self.server.new_key(*options).key)

    def sdk(self, *options: str) -> OpenAI:
        """The official client with a new key."""
        http = httpx2.Client(trust_env=False)
        client = OpenAI(base_url=f"{self.server.url}/v1", api_key=self.server.new_key(*options).key, http_client=http)
        self.closing.callback(client.close)
        return client


@pytest.fixture
def house(server: Server) -> Iterator[House]:
    found = House(server)
    with found.closing:
        yield found


def numbers(headers: httpx2.Headers, word: str) -> tuple[int, int]:
    """Of requests and of tokens."""
    return int(headers[f"x-ratelimit-{word}-requests"]), int(headers[f"x-ratelimit-{word}-tokens"])


@pytest.mark.parametrize("stream", [False, True])
def test_every_reply_says_how_the_limits_are(house: House, stream: bool) -> None:
    api = house.with_key("--rpm", "50", "--tpm", "500")
    left = (50, 500)
    for _ in range(3):
        headers = api.post({"stream": stream}).headers
        assert numbers(headers, "limit") == (50, 500)
        now = numbers(headers, "remaining")
        assert 0 <= now[0] < left[0]
        assert 0 <= now[1] <= left[1]
        left = now
        for unit in ("requests", "tokens"):
            assert DURATION.fullmatch(headers[f"x-ratelimit-reset-{unit}"])


def test_the_files_limit_holds_for_keys_that_have_none(house: House) -> None:
    assert numbers(house.api().post({}).headers, "limit") == (1000, 100_000)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_over_a_limit_is_refused_until_the_time_that_is_told(house: House, stream: bool) -> None:
    api = house.with_key("--rpm", "60")
    while (response := api.post({"stream": stream})).status_code == 200:
        pass
    assert refusal(response)[:4] == (429, "rate_limit_exceeded", "rate_limit_exceeded", None)
    said = response.json()["error"]["message"]
    assert re.fullmatch(r"Requests per minute of this API key: 60 of 60 used\. Try again in \d\.\d s\.", said)
    assert numbers_of_requests(response.headers) == (60, 0)
    wait = int(response.headers["retry-after-ms"])
    assert 1 <= wait <= 1000
    assert response.headers["retry-after"] == "1"
    time.sleep(wait / 1000)
    assert api.post({}).status_code == 200


def numbers_of_requests(headers: httpx2.Headers) -> tuple[int, int]:
    return int(headers["x-ratelimit-limit-requests"]), int(headers["x-ratelimit-remaining-requests"])


def test_tokens_too(house: House) -> None:
    api = house.with_key("--tpm", "40")
    while (response := api.post({})).status_code == 200:
        pass
    assert response.status_code == 429
    assert re.match(r"Tokens per minute of this API key: \d+ of 40 used, and this", response.json()["error"]["message"])
    assert response.headers["x-ratelimit-limit-tokens"] == "40"


def test_what_can_never_pass_is_not_to_be_repeated(house: House) -> None:
    api = house.with_key("--tpm", "3")
    response = api.post({})
    assert refusal(response).status == 429
    assert "Waiting does not help" in response.json()["error"]["message"]
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers
    assert response.headers["x-ratelimit-remaining-tokens"] == "3"


def test_under_saturation_as_many_are_admitted_as_burst_and_time_make(house: House) -> None:
    key = house.server.new_key("--rpm", "120").key  # 120 at once, then 2 a second
    apis = [house.api(key) for _ in range(8)]
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(lambda api: admitted_until(api, began + 3), apis))
    took = time.monotonic() - began
    assert 120 + 2 * 3 - 1 <= admitted <= 120 + 2 * took + 1


def admitted_until(api: Api, end: float) -> int:
    admitted = 0
    while time.monotonic() < end:
        admitted += api.post({}).status_code == 200
    return admitted


def test_so_many_at_the_same_time(house: House) -> None:
    key = house.server.new_key("--concurrency", "2").key
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: house.api(key).post({"model": "slow"}), range(4)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 429, 429]
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert "Requests at the same time of this API key: 2 of 2 used." in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "1"
    assert house.api(key).post({"model": "slow"}).status_code == 200


def ask_for_ever(client: OpenAI) -> None:
    while True:
        client.chat.completions.create(model="echo", messages=SAID)


def test_the_sdk_waits_as_it_is_told_and_gets_its_answer(house: House) -> None:
    client = house.sdk("--rpm", "60")
    unwilling = client.with_options(max_retries=0)
    with pytest.raises(RateLimitError) as caught:
        ask_for_ever(unwilling)
    assert caught.value.code == "rate_limit_exceeded"
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=SAID)
    assert raw.retries_taken == 1
    assert raw.parse().choices[0].message.content == "hi"


def test_the_sdk_does_not_repeat_what_can_never_pass(house: House) -> None:
    with pytest.raises(RateLimitError) as caught:
        house.sdk("--tpm", "3").chat.completions.create(model="echo", messages=[{"role": "user", "content": "a b c d"}])
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


def test_the_javascript_sdk_honours_limits_and_budgets(server: Server) -> None:
    keys = {"CHATPORT_KEY": ("--rpm", "60"), "CHATPORT_SMALL": ("--tpm", "3"), "CHATPORT_SPENT": ("--budget", "1tok")}
    made = {name: server.new_key(*options).key for name, options in keys.items()}
    run_tests("limits.test.mjs", server, **made)


def test_limits_change_while_the_server_runs(house: House) -> None:
    key = house.server.new_key("--owner", "carol")
    api = house.api(key.key)
    house.server.cli("limits", "set", "owner:carol", "--rpm", "5")
    deadline = time.monotonic() + 10
    while int(api.post({}).headers["x-ratelimit-limit-requests"]) != 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    house.server.cli("limits", "rm", "owner:carol")
    while api.post({}).headers["x-ratelimit-limit-requests"] != "1000":
        assert time.monotonic() < deadline + 10
        time.sleep(0.05)


def test_a_new_key_is_never_without_its_limit(house: House) -> None:
    for _ in range(3):
        api = house.with_key("--rpm", "2")
        assert [api.post({}).status_code for _ in range(3)] == [200, 200, 429]


def test_a_limit_that_reports_only_reports(house: House) -> None:
    api = house.with_key("--owner", "watched")
    headers = [api.post({}) for _ in range(3)][-1].headers
    assert numbers_of_requests(headers)[0] == 1000
    admin = house.api(house.server.admin_key)
    reported = admin.http.get("/admin/limits").json()["data"]
    assert reported == [{"scope": "owner:watched", "limit": "rpm", "count": 2}]
    assert "the limit rpm of owner:watched would have refused a request of key" in house.server.log.read_text()
    assert api.http.get("/admin/limits").status_code == 403


def test_the_files_limits_are_read_again(tmp_path: Path) -> None:
    with serving(tmp_path, CONFIG) as server:
        house = House(server)
        with house.closing:
            (tmp_path / "chatport.toml").write_text(CONFIG.replace("rpm = 1000", "rpm = 7"), encoding="utf-8")
            assert house.api(server.admin_key).http.post("/admin/reload").status_code == 200
            assert numbers(house.api().post({}).headers, "limit")[0] == 7


FALLING_BACK = """
[[models]]
id = "far"
attempts = 1
fallbacks = ["near"]
[[models.targets]]
backend = "openai"
base_url = "http://127.0.0.1:1/v1"

[[models]]
id = "near"
backend = "scripted"

[[limits]]
scope = "model:near"
rpm = 1
"""


def test_a_fallback_answers_within_its_own_limits(tmp_path: Path) -> None:
    with serving(tmp_path, FALLING_BACK) as server:
        api = Api(server)
        first = api.post({"model": "far", "messages": SAID})
        assert (first.status_code, first.json()["model"]) == (200, "near")
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        second = api.refusal(model="far", messages=SAID)
        assert (second.status, second.code) == (429, "rate_limit_exceeded")
        assert 'Requests per minute of the model "near"' in second.message
        api.close()
