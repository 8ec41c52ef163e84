"""contract.md §14: completions that are kept, read back with the official SDK and with plain HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support.asking import CREATE, HELLO, Api, check_completion, refusal
from support.published import check


@pytest.fixture
def owner(api: Api) -> Iterator[Api]:
    """A key of this test's own: what others stored is not in its lists."""
    client = Api(api.server, api.server.new_key("--name", "stored").key)
    yield client
    client.close()


def stored(api: Api, **fields: Any) -> str:
    return str(api.completion(store=True, **fields)["id"])


def listing(api: Api, **query: Any) -> dict[str, Any]:
    response = api.http.get(CREATE, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    if page["data"]:  # of an empty page the description does not know that its ids are null
        check("ChatCompletionList", page)
    for completion in page["data"]:
        check_completion(completion)
    return page


class TestOne:
    def test_is_read_back(self, api: Api) -> None:
        reply = api.completion(store=True, metadata={"topic": "春天"})
        kept = api.http.get(f"{CREATE}/{reply['id']}").json()
        check_completion(kept)
        assert kept == reply | {"metadata": {"topic": "春天"}}

    def test_that_was_streamed(self, api: Api) -> None:
        streamed = api.stream(store=True, model="poem")
        kept = api.http.get(f"{CREATE}/{streamed.frames[0]['id']}").json()
        check_completion(kept)
        assert kept["choices"][0]["message"]["content"] == streamed.content
        assert "\0" in streamed.content

    @pytest.mark.parametrize("store", [False, None, ...])
    def test_that_was_not_stored(self, api: Api, store: Any) -> None:
        refused = refusal(api.http.get(f"{CREATE}/{api.completion(store=store)['id']}"))
        assert refused[:4] == (404, "not_found", "not_found", None)

    @pytest.mark.parametrize("path", ["chatcmpl-nobody", "%00", "%FF%FE", "a" * 500])
    def test_that_never_was(self, api: Api, path: str) -> None:
        assert refusal(api.http.get(f"{CREATE}/{path}")).status == 404
        assert refusal(api.http.delete(f"{CREATE}/{path}")).status == 404
        assert refusal(api.http.get(f"{CREATE}/{path}/messages")).status == 404

    def test_is_nobody_elses(self, api: Api, owner: Api) -> None:
        assert refusal(owner.http.get(f"{CREATE}/{stored(api)}")).status == 404

    @pytest.mark.parametrize("metadata", [{"a": "b"}, {}, None])
    def test_gets_other_metadata(self, api: Api, metadata: dict[str, str] | None) -> None:
        path = f"{CREATE}/{stored(api, metadata={'old': 'x'})}"
        changed = api.http.post(path, json={"metadata": metadata}).json()
        check_completion(changed)
        assert (changed["metadata"] or None) == (metadata or None)
        assert api.http.get(path).json() == changed

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "metadata"),
            ({"metadata": 5}, "metadata"),
            ({"metadata": {"k": 5}}, "metadata.k"),
            ({"metadata": {"k": "v" * 513}}, "metadata.k"),
            ({"metadata": {f"k{i}": "" for i in range(17)}}, "metadata"),
        ],
    )
    def test_gets_no_wrong_metadata(self, api: Api, body: dict[str, Any], param: str) -> None:
        refused = refusal(api.http.post(f"{CREATE}/{stored(api)}", json=body))
        assert (refused.status, refused.param) == (400, param)

    def test_is_deleted_once(self, api: Api) -> None:
        id_ = stored(api)
        deleted = api.http.delete(f"{CREATE}/{id_}").json()
        check("ChatCompletionDeleted", deleted)
        assert deleted == {"object": "chat.completion.deleted", "id": id_, "deleted": True}
        assert refusal(api.http.delete(f"{CREATE}/{id_}")).status == 404
        assert refusal(api.http.get(f"{CREATE}/{id_}")).status == 404
        assert refusal(api.http.get(f"{CREATE}/{id_}/messages")).status == 404


class TestItsMessages:
    CONVERSATION: list[dict[str, Any]] = [  # noqa: RUF012
        {"role": "system", "content": "Be \0 brief."},
        {"role": "user", "content": "one", "name": "ann"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "three "}, {"type": "text", "text": "four"}]},
    ]

    def page(self, api: Api, id_: str, **query: Any) -> dict[str, Any]:
        page: dict[str, Any] = api.http.get(f"{CREATE}/{id_}/messages", params=query).json()
        # The description knows only messages of the assistant here, though it is the input that is listed.
        as_described = [message | {"role": "assistant"} for message in page["data"]]
        check("ChatCompletionMessageList", page | {"data": as_described})
        for message in as_described:
            check("StoredMessage", message)
        return page

    def test_are_the_input(self, api: Api) -> None:
        page = self.page(api, stored(api, messages=self.CONVERSATION))
        assert [(message["role"], message["content"]) for message in page["data"]] == [
            ("system", "Be \0 brief."),
            ("user", "one"),
            ("assistant", "two"),
            ("user", "three four"),
        ]
        assert [message["content_parts"] for message in page["data"][:3]] == [None] * 3
        assert page["data"][3]["content_parts"] == self.CONVERSATION[3]["content"]
        assert page["data"][1]["name"] == "ann"
        assert page["has_more"] is False

    def test_page_by_page(self, api: Api) -> None:
        id_ = stored(api, messages=self.CONVERSATION)
        whole = self.page(api, id_)["data"]
        first = self.page(api, id_, limit=3)
        rest = self.page(api, id_, limit=3, after=first["last_id"])
        assert first["data"] + rest["data"] == whole
        assert (first["has_more"], rest["has_more"]) == (True, False)

    def test_backwards(self, api: Api) -> None:
        id_ = stored(api, messages=self.CONVERSATION)
        assert self.page(api, id_, order="desc")["data"] == self.page(api, id_)["data"][::-1]


class TestAll:
    def test_none(self, owner: Api) -> None:
        page = listing(owner)
        assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}

    def test_in_order_of_time(self, owner: Api) -> None:
        ids = [stored(owner) for _ in range(4)]
        page = listing(owner)
        assert [completion["id"] for completion in page["data"]] == ids
        assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[-1], False)
        assert [completion["id"] for completion in listing(owner, order="desc")["data"]] == ids[::-1]

    def test_page_by_page_with_the_sdk(self, owner: Api) -> None:
        ids = [stored(owner) for _ in range(5)]
        with openai.OpenAI(
            base_url=f"{owner.server.url}/v1",
            api_key=owner.http.headers["authorization"].split()[1],
            http_client=openai.DefaultHttpxClient(trust_env=False),
        ) as sdk:
            assert [each.id for each in sdk.chat.completions.list(limit=2)] == ids
            assert [each.id for each in sdk.chat.completions.list(limit=2, order="desc")] == ids[::-1]
            assert [each.id for each in sdk.chat.completions.list(limit=2, after=ids[1])] == ids[2:]

    def test_filtered(self, owner: Api) -> None:
        red = stored(owner, metadata={"colour": "red", "size": "m"})
        stored(owner, metadata={"colour": "blue"})
        poem = stored(owner, model="poem")
        assert [each["id"] for each in listing(owner, **{"metadata[colour]": "red"})["data"]] == [red]
        assert listing(owner, **{"metadata[colour]": "red", "metadata[size]": "l"})["data"] == []
        assert [each["id"] for each in listing(owner, model="poem")["data"]] == [poem]

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ({"limit": "0"}, "limit"),
            ({"limit": "101"}, "limit"),
            ({"limit": "many"}, "limit"),
            ({"limit": "-1"}, "limit"),
            ({"order": "up"}, "order"),
        ],
    )
    def test_wrong_queries(self, api: Api, query: dict[str, str], param: str) -> None:
        refused = refusal(api.http.get(CREATE, params=query))
        assert (refused.status, refused.param) == (400, param)

    def test_after_nobody(self, api: Api) -> None:
        assert refusal(api.http.get(CREATE, params={"after": "chatcmpl-nobody"})).status in {400, 404}


def test_the_sdk_does_all_of_it(sdk: openai.OpenAI) -> None:
    made = sdk.chat.completions.create(model="echo", messages=HELLO, store=True, metadata={"a": "1"})  # type: ignore[arg-type]
    assert sdk.chat.completions.retrieve(made.id).choices == made.choices
    assert sdk.chat.completions.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert [message.content for message in sdk.chat.completions.messages.list(made.id)] == [HELLO[0]["content"]]
    assert sdk.chat.completions.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.retrieve(made.id)
