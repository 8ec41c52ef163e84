"""What the hubs' replies say, and what their refusals mean, asked of an imitation on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatport.backends.llama import download
from chatport.backends.llama.catalogue import KNOWN, HubFile, HubModel, Source, WeightsError
from chatport.backends.llama.download import fetch
from chatport.backends.llama.hubs import Hub, HubError, HuggingFace, ModelScope, hubs_of
from support.downloads import Seen
from support.hub import COMMIT, hub_listening
from support.hub import Hub as Imitation

FILE = HubFile("own/tiny-GGUF", "sub/tiny Q8_0.gguf")
CONTENT = b"GGUF" + bytes(1000)
PRIVATE = (
    "has no repository own/tiny-GGUF for everybody. A private or gated one needs an access token of yours in HF_TOKEN"
)


@pytest.fixture
def imitation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Imitation]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with hub_listening() as hub:
        hub.repositories[FILE.repository] = {FILE.path: CONTENT, "mmproj-tiny.gguf": b"GGUF"}
        yield hub


def both(imitation: Imitation, token: str = "") -> tuple[Hub, ...]:
    tokens = {"HF_TOKEN": token, "MODELSCOPE_API_TOKEN": token}
    return hubs_of({"HF_ENDPOINT": f"{imitation.url}/", "MODELSCOPE_ENDPOINT": imitation.url, **tokens})


def test_both_tell_size_and_sha256_and_where_it_is(
    imitation: Imitation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for hub in both(imitation):
        offer = hub.offer(FILE)
        assert {"size": offer.size, "sha256": offer.sha256} == imitation.described(CONTENT)
        part = tmp_path_factory.mktemp("part") / "part"
        fetch(offer.remote, part, offer.size, Seen())
        assert part.read_bytes() == CONTENT


def test_a_file_is_read_at_the_commit_that_was_told(imitation: Imitation) -> None:
    address = both(imitation)[0].offer(FILE).remote.address
    assert address == f"{imitation.url}/own/tiny-GGUF/resolve/{COMMIT}/sub/tiny%20Q8_0.gguf"


def test_a_repository_that_moved_is_followed(imitation: Imitation) -> None:
    imitation.renamed["old/tiny-GGUF"] = FILE.repository
    imitation.token = "t0ken"
    assert both(imitation, "t0ken")[0].offer(HubFile("old/tiny-GGUF", FILE.path)).size == len(CONTENT)


def test_a_token_opens_what_is_private_and_is_in_no_message(imitation: Imitation) -> None:
    imitation.token = "t0ken"
    for hub in both(imitation, "t0ken"):
        assert hub.offer(FILE).size == len(CONTENT)
    for hub in both(imitation, "wrong-t0ken"):
        with pytest.raises(HubError) as error:
            hub.offer(FILE)
        assert "t0ken" not in str(error.value)


@pytest.mark.parametrize("told", [{"sha256": ""}, {"sha256": "0123"}, {"size": 0}])
def test_what_can_not_be_checked_is_not_fetched(told: dict[str, object], imitation: Imitation) -> None:
    imitation.told = told
    for hub in both(imitation):
        with pytest.raises(HubError, match=r"does not say size and sha256 of sub/tiny Q8_0\.gguf"):
            hub.offer(FILE)


def test_a_file_that_is_not_there_is_told_with_those_that_are(imitation: Imitation) -> None:
    for hub in both(imitation):
        with pytest.raises(
            HubError, match=r"has no x\.gguf in own/tiny-GGUF\. Its models of one file: sub/tiny Q8_0\.gguf$"
        ):
            hub.offer(HubFile(FILE.repository, "x.gguf"))


@pytest.mark.parametrize(
    ("status", "token", "sentence"),
    [
        (
            401,
            "",
            PRIVATE,
        ),
        (
            404,
            "",
            PRIVATE,
        ),
        (401, "t", "does not accept the token in HF_TOKEN, even where none is needed: renew or unset it"),
        (404, "t", "has no repository own/tiny-GGUF for everybody"),
        (403, "", "keeps own/tiny-GGUF behind a gate: accept its terms on its page there, and set HF_TOKEN"),
        (418, "", "refuses, with status 418"),
        (503, "", "is in trouble (status 503)"),
        (429, "", "is in trouble (status 429)"),
    ],
)
def test_what_a_refusal_of_hugging_face_means(status: int, token: str, sentence: str, imitation: Imitation) -> None:
    imitation.status = status
    with pytest.raises(HubError) as error:
        both(imitation, token)[0].offer(FILE)
    assert str(error.value).startswith(sentence)


def test_what_a_refusal_of_modelscope_means(imitation: Imitation) -> None:
    imitation.status = 404
    with pytest.raises(
        HubError, match=r"has no repository own/tiny-GGUF for everybody\. A private one needs .*MODELSCOPE_API_TOKEN"
    ):
        both(imitation)[1].offer(FILE)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"siblings": 1}', b'{"Data": 1}', b"\xff"])
def test_a_reply_that_is_none_of_a_hub(body: bytes, imitation: Imitation) -> None:
    imitation.body = body
    errors = []
    for hub in both(imitation):
        with pytest.raises(HubError) as error:
            hub.offer(FILE)
        errors.append(str(error.value))
    assert any("says of its files what we can't read" in sentence for sentence in errors)


def test_modelscope_without_data_has_no_such_repository(imitation: Imitation) -> None:
    imitation.body = b'{"Code": 10010205001, "Success": false, "Message": "no"}'
    with pytest.raises(HubError, match="has no repository own/tiny-GGUF for everybody"):
        both(imitation)[1].offer(FILE)


@pytest.mark.parametrize("address", ["ftp://x", "x", "https://", "https://me:s3cret@host", "file:///x"])
@pytest.mark.parametrize("variable", ["HF_ENDPOINT", "MODELSCOPE_ENDPOINT"])
def test_an_endpoint_that_is_none_is_told_without_its_value(variable: str, address: str) -> None:
    with pytest.raises(WeightsError) as error:
        hubs_of({variable: address})
    assert str(error.value).startswith(f"{variable} is no address that can be used; allowed: https://HOST")
    assert "s3cret" not in str(error.value)


def test_a_source_is_one_hub() -> None:
    assert [hub.source for hub in hubs_of({})] == [Source.HUGGINGFACE, Source.MODELSCOPE]
    assert [type(hub) for hub in hubs_of({}, Source.MODELSCOPE)] == [ModelScope]
    assert HuggingFace({}).title == "Hugging Face"
    assert HuggingFace({"HF_ENDPOINT": "https://mirror.example"}).title == "the mirror in HF_ENDPOINT"


def test_every_row_of_the_catalogue_is_complete() -> None:
    rows = [model for model in KNOWN.values() if isinstance(model, HubModel)]
    assert len(rows) >= 8
    for row in rows:
        for file in (row.huggingface, row.modelscope):
            if file is not None:
                assert len(file.repository.split("/")) == 2
                assert file.path.endswith(".gguf")
        assert row.summary.endswith(".")
        assert row.licence
