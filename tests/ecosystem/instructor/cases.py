"""instructor against a running server: CHATPORT_URL and CHATPORT_KEY say where.

Run by `tests/ecosystem/test_instructor.py` in an environment of its own, with its own pytest.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, Literal

import instructor
import openai
import pytest
from instructor import Mode
from instructor.core import InstructorRetryException
from pydantic import BaseModel, Field, field_validator

WHERE: dict[str, Any] = {
    "base_url": f"{os.environ['CHATPORT_URL']}/v1",
    "api_key": os.environ["CHATPORT_KEY"],
    "max_retries": 0,
}
ASKED: dict[str, Any] = {
    "model": "gpt-4",
    "messages": [{"role": "user", "content": "Which city is in Italy?"}],
    "temperature": 0,
    "max_tokens": 48,
}
BY_SCHEMA = [Mode.TOOLS, Mode.JSON_SCHEMA]
"""The modes in which the server holds the model to the schema. The others only ask the model to keep to it."""


class City(BaseModel):
    name: Literal["Paris", "Rome"]
    size: int = Field(ge=0, le=9)
    twin: Literal["Rome", "Oslo"] | None = None


class Sure(City):
    """Never right: the model is told so, and asked again."""

    @field_validator("size")
    @classmethod
    def unsure(cls, size: int) -> int:
        raise ValueError(f"{size} is not the size of it")


class Cities(BaseModel):
    cities: list[City] = Field(min_length=2, max_length=2)


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**WHERE) as made:
        yield made


@pytest.mark.parametrize("mode", BY_SCHEMA)
def test_a_model_is_filled(client: openai.OpenAI, mode: Mode) -> None:
    city, reply = instructor.from_openai(client, mode=mode).create_with_completion(response_model=City, **ASKED)
    assert isinstance(city, City)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0


@pytest.mark.parametrize("mode", BY_SCHEMA)
def test_models_within_models(client: openai.OpenAI, mode: Mode) -> None:
    found = instructor.from_openai(client, mode=mode).create(response_model=Cities, **ASKED | {"max_tokens": 96})
    assert [isinstance(city, City) for city in found.cities] == [True, True]


@pytest.mark.parametrize("mode", BY_SCHEMA)
def test_a_stream_grows_into_the_plain_answer(client: openai.OpenAI, mode: Mode) -> None:
    asking = instructor.from_openai(client, mode=mode)
    parts = list(asking.create_partial(response_model=City, **ASKED))
    assert len(parts) > 2
    assert parts[0].size is None
    last = City.model_validate(parts[-1].model_dump())
    assert (last.name, last.size) in {(city.name, city.size) for city in (parts[-2], parts[-1])}


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON_SCHEMA])
def test_one_model_after_the_other(client: openai.OpenAI, mode: Mode) -> None:
    """How many there will be is the model's affair; the limit may cut the last one."""
    cities = list(instructor.from_openai(client, mode=mode).create_iterable(response_model=City, **ASKED))
    assert cities
    assert all(isinstance(city, City) for city in cities)


@pytest.mark.parametrize("mode", BY_SCHEMA)
def test_what_does_not_validate_is_asked_for_again(client: openai.OpenAI, mode: Mode) -> None:
    """The second request holds the first answer, call and all, and what was wrong with it: the server takes it."""
    with pytest.raises(InstructorRetryException) as raised:
        instructor.from_openai(client, mode=mode).create(response_model=Sure, max_retries=1, **ASKED)
    assert raised.value.n_attempts == 2
    assert "is not the size of it" in str(raised.value)


@pytest.mark.parametrize("mode", [Mode.JSON, Mode.MD_JSON])
def test_a_schema_that_is_only_told(client: openai.OpenAI, mode: Mode) -> None:
    city = instructor.from_openai(client, mode=mode).create(response_model=City, **ASKED | {"model": "rome"})
    assert (city.name, city.size) == ("Rome", 3)


def test_asynchronous() -> None:
    async def ask() -> list[City]:
        async with openai.AsyncOpenAI(**WHERE) as made:
            asking = instructor.from_openai(made)
            return list(await asyncio.gather(*(asking.create(response_model=City, **ASKED) for _ in range(2))))

    assert [isinstance(city, City) for city in asyncio.run(ask())] == [True, True]


def test_errors_are_the_sdks(client: openai.OpenAI) -> None:
    with pytest.raises(InstructorRetryException) as raised:
        instructor.from_openai(client).create(response_model=City, **ASKED | {"temperature": 9})
    assert "temperature" in str(raised.value)
