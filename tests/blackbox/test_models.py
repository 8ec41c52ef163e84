"""contract.md §15: models, by each of their names."""

from __future__ import annotations

from urllib.parse import quote

import openai
import pytest

from support.asking import Api, refusal
from support.published import check


def test_the_list_holds_ids_and_aliases(api: Api) -> None:
    listing = api.http.get("/v1/models").json()
    check("ListModelsResponse", listing)
    ids = [model["id"] for model in listing["data"]]
    assert {"echo", "gpt-4", "gpt-3.5-turbo", "library/poem:1"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_each_is_retrieved_as_it_is_listed(api: Api) -> None:
    for model in api.http.get("/v1/models").json()["data"]:
        check("Model", model)
        retrieved = api.http.get(f"/v1/models/{quote(model['id'], safe='')}")
        assert retrieved.json() == model


@pytest.mark.parametrize("name", ["echo", "gpt-4", "gpt-3.5-turbo", "poem", "library/poem:1"])
def test_each_answers(api: Api, name: str) -> None:
    api.completion(model=name)


@pytest.mark.parametrize("path", ["library/poem:1", "library%2Fpoem:1", "library%2Fpoem%3A1"])
def test_a_name_with_a_slash(api: Api, path: str) -> None:
    assert api.http.get(f"/v1/models/{path}").json()["id"] == "library/poem:1"


@pytest.mark.parametrize("path", ["nobody", "library", "echo/", "%00", "..%2F..", "%FF"])
def test_an_unknown_one(api: Api, path: str) -> None:
    assert refusal(api.http.get(f"/v1/models/{path}"))[:2] == (404, "not_found")


def test_the_sdk_lists_and_retrieves(sdk: openai.OpenAI) -> None:
    assert "echo" in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve("library/poem:1").id == "library/poem:1"
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.models.retrieve("nobody")
    assert refused.value.code == "model_not_found"


def test_what_a_model_can_do_is_listed(api: Api) -> None:
    model = api.http.get("/v1/models/echo").json()
    assert "tools" in model["capabilities"]
