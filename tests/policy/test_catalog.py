"""Models, their names, and who may use them."""

from __future__ import annotations

import pytest

from chatport.policy.catalog import Catalog, Model
from chatport.policy.keys import Caller
from chatport.targets import Target
from chatport.wire.chat import ChatRequest, UserMessage
from chatport.wire.errors import AccessDenied, ModelNotFound


def model(name: str, *aliases: str) -> Model:
    target = Target(id=name, backend=name, model=name)
    return Model(id=name, aliases=aliases, targets=(target,), created=1, owned_by="chatport", context_length=8192)


def caller(*models: str) -> Caller:
    return Caller(key_id="key_1", name="test", admin=False, models=frozenset(models) if models else None)


def asking_for(name: str) -> ChatRequest:
    return ChatRequest(model=name, messages=[UserMessage(content="hi")])


CATALOG = Catalog([model("small", "gpt-4", "gpt-3.5-turbo"), model("owner/big:7b")])


@pytest.mark.parametrize(("name", "found"), [("small", "small"), ("gpt-4", "small"), ("owner/big:7b", "owner/big:7b")])
def test_a_model_answers_to_all_its_names(name: str, found: str) -> None:
    assert CATALOG.find(asking_for(name), caller()).id == found


def test_an_unknown_model_is_named_with_what_there_is() -> None:
    with pytest.raises(ModelNotFound, match=r"gpt-5.*Available: small, gpt-4") as caught:
        CATALOG.find(asking_for("gpt-5"), caller())
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_a_key_with_a_list_reaches_only_what_is_on_it() -> None:
    with pytest.raises(AccessDenied, match="It may use: gpt-4"):
        CATALOG.find(asking_for("small"), caller("gpt-4"))
    assert CATALOG.find(asking_for("gpt-4"), caller("gpt-4")).id == "small"


def test_a_key_that_has_the_model_has_its_aliases() -> None:
    assert CATALOG.find(asking_for("gpt-4"), caller("small")).id == "small"


def test_an_unknown_model_is_404_even_for_a_key_with_a_list() -> None:
    with pytest.raises(ModelNotFound) as caught:
        CATALOG.find(asking_for("nothing"), caller("gpt-4"))
    assert "big" not in caught.value.message


@pytest.mark.parametrize("who", [caller(), caller("gpt-4"), caller("owner/big:7b", "gone")])
def test_every_name_listed_is_accepted_and_retrievable(who: Caller) -> None:
    for entry in CATALOG.listing(who):
        assert CATALOG.describe(entry.id, who) == entry
        CATALOG.find(asking_for(entry.id), who)


def test_the_listing_holds_aliases_and_what_a_client_builder_wants_to_know() -> None:
    assert [entry.id for entry in CATALOG.listing(caller())] == ["small", "gpt-4", "gpt-3.5-turbo", "owner/big:7b"]
    assert CATALOG.listing(caller())[1].context_length == 8192


FAMILY = Model(
    id="openai/*",
    targets=(Target(id="openai", backend="openai", model="openai/*"),),
    created=1,
    owned_by="chatport",
)


def test_a_family_stands_for_every_model_of_its_upstream() -> None:
    catalog = Catalog([model("openai/known"), FAMILY])
    found = catalog.find(asking_for("openai/gpt-4o"), caller())
    assert (found.id, found.targets[0].model) == ("openai/gpt-4o", "gpt-4o")
    assert catalog.find(asking_for("openai/known"), caller()).targets[0].model == "openai/known"
    for name in ("openai/", "openai", "open/x"):
        with pytest.raises(ModelNotFound):
            catalog.find(asking_for(name), caller())
    assert [entry.id for entry in catalog.listing(caller())] == ["openai/known"]


def test_once_its_list_is_known_a_family_has_what_is_on_it() -> None:
    catalog = Catalog([FAMILY])
    catalog.learn(FAMILY, ["gpt-4o", "ft:x/y"])
    assert [entry.id for entry in catalog.listing(caller())] == ["openai/gpt-4o", "openai/ft:x/y"]
    for entry in catalog.listing(caller()):
        assert catalog.describe(entry.id, caller()) == entry
    with pytest.raises(ModelNotFound, match="openai/gpt-4o"):
        catalog.find(asking_for("openai/gpt-5"), caller())


def test_a_key_may_be_given_a_family_or_one_of_it() -> None:
    catalog = Catalog([FAMILY])
    for given in ("openai/*", "openai/gpt-4o"):
        assert catalog.find(asking_for("openai/gpt-4o"), caller(given)).id == "openai/gpt-4o"
        assert catalog.describe("openai/gpt-4o", caller(given)).id == "openai/gpt-4o"
    with pytest.raises(AccessDenied):
        catalog.find(asking_for("openai/o1"), caller("openai/gpt-4o"))


def test_further_models_come_and_go_and_never_hide_a_configured_one() -> None:
    catalog = Catalog([model("small", "gpt-4")])
    catalog.serve_also([model("more"), model("gpt-4"), model("small")])
    assert [entry.id for entry in catalog.listing(caller())] == ["small", "gpt-4", "more"]
    assert catalog.find(asking_for("gpt-4"), caller()).id == "small"
    assert catalog.find(asking_for("more"), caller("more")).id == "more"
    with pytest.raises(AccessDenied):
        catalog.find(asking_for("more"), caller("small"))
    catalog.serve_also([model("others")])
    assert [entry.id for entry in catalog.listing(caller())] == ["small", "gpt-4", "others"]


async def test_only_a_name_it_does_not_know_is_looked_for() -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        catalog.serve_also([model("new")])

    catalog = Catalog([model("small", "gpt-4")], look)
    for name, expected in (("small", 0), ("gpt-4", 0), ("new", 1), ("new", 1), ("nobody", 2), (None, 3)):
        await catalog.look_for(name)
        assert looks == expected
    assert catalog.find(asking_for("new"), caller()).id == "new"
    await CATALOG.look_for("nobody")  # nobody looks for it


def test_it_has_a_model_by_each_of_its_names_whoever_asks() -> None:
    catalog = Catalog([model("small", "gpt-4"), model("all/*")])
    assert [name for name in ("small", "gpt-4", "all/of/them") if not catalog.has(name)] == []
    assert [name for name in ("all/", "other") if catalog.has(name)] == []
