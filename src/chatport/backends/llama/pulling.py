"""A model from whichever hub answers: asked side by side, changed when one fails, checked before it counts.

A part is named after the sha256 of what it is a part of. So what one hub began the other goes on with, exactly when
both have the same file; and a file that was changed at the hub between two runs is begun anew.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from chatport.backends.llama.catalogue import HubFile, HubModel, Source, WeightsError
from chatport.backends.llama.download import (
    BrokenOff,
    Progress,
    Silent,
    Unreadable,
    WrongSize,
    disk_errors,
    fetch,
    refuse_full_disk,
    sha256_of,
    size_of,
)
from chatport.backends.llama.hubs import PROBE_SECONDS, Hub, HubError, Offer, listed, whole_models

HEAD_START = 1.0
"""Seconds that a preferred hub has for itself before a faster one is taken."""
PART_DIGITS = 12
"""Of the sha256, in the name of a part."""

_PART = re.compile(rf"[0-9a-f]{{{PART_DIGITS}}}\.part")

Answer = TypeVar("Answer")


class Wanted(Struct, frozen=True, kw_only=True):
    """A model, and where the hubs have it."""

    name: str
    licence: str | None
    """None where nobody knows."""
    places: dict[Source, HubFile]


def wanted_row(model: HubModel) -> Wanted:
    """A model of the catalogue."""
    places = {Source.HUGGINGFACE: model.huggingface}
    if model.modelscope is not None:
        places[Source.MODELSCOPE] = model.modelscope
    return Wanted(name=model.name, licence=model.licence, places=places)


def wanted_file(name: str, file: HubFile) -> Wanted:
    """Any file, which each hub would have under the same name."""
    return Wanted(name=name, licence=None, places={Source.HUGGINGFACE: file, Source.MODELSCOPE: file})


def fetch_from_hubs(wanted: Wanted, hubs: Sequence[Hub], target: Path, progress: Progress) -> None:
    """Fetches the model from the first of the hubs that can give it. Raises WeightsError with what each one said."""
    having = [hub for hub in hubs if hub.source in wanted.places]
    if not having:
        raise WeightsError(f"{wanted.name} is not known to be there. It can be had from: {', '.join(wanted.places)}.")
    trouble: list[str] = []
    for offer in _answers(having, lambda hub: hub.offer(wanted.places[hub.source]), trouble):
        if trouble:
            progress.say(f"{trouble[-1]} Taking {offer.hub.title} instead.")
        try:
            _fetch(wanted, offer, target, progress)
        except HubError as error:
            trouble.append(_said(offer.hub, error))
            continue
        return
    kept = " What came is kept: run the command again and it goes on there." if parts_of(target) else ""
    raise WeightsError(f"{wanted.name} could not be fetched. {' '.join(trouble)}{kept}")


def only_model(repository: str, hubs: Sequence[Hub]) -> HubFile:
    """The one model in a repository. Raises WeightsError where there is none, or more to choose from."""
    trouble: list[str] = []
    for files in _answers(hubs, lambda hub: hub.files(repository), trouble):
        paths = whole_models(repository, files)
        if len(paths) == 1:
            return HubFile(repository, paths[0])
        if paths:
            raise WeightsError(f"{repository} has several models; name one of them: {listed(paths, repository)}.")
        trouble.append(
            f"{repository} has no .gguf file that holds a whole model; those are often in a repository of their own, "
            "named …-GGUF."
        )
    raise WeightsError(" ".join(trouble))


def parts_of(target: Path) -> list[Path]:
    """What is there of unfinished downloads of this file."""
    begins = f"{target.name}."
    if not target.parent.is_dir():
        return []
    names = (file.name for file in target.parent.iterdir())
    return [target.with_name(name) for name in names if name.startswith(begins) and _PART.fullmatch(name, len(begins))]


def _answers(hubs: Sequence[Hub], ask: Callable[[Hub], Answer], trouble: list[str]) -> Iterator[Answer]:
    """What the hubs say, as they answer; those without an answer add a sentence to `trouble`.

    All are asked at once. An earlier one of the row is taken first where it answers within its head start.
    """
    asked = {_asked(hub, ask): hub for hub in hubs}
    deadline = time.monotonic() + PROBE_SECONDS
    wait(list(asked)[:1], HEAD_START)
    while asked:
        done = wait(asked, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED).done
        answered = next((future for future in asked if future in done), None)
        if answered is None:
            trouble += [_said(hub, HubError(f"did not answer within {PROBE_SECONDS:.0f} s")) for hub in asked.values()]
            break
        hub = asked.pop(answered)
        try:
            answer = answered.result()
        except HubError as error:
            trouble.append(_said(hub, error))
            continue
        yield answer


def _asked(hub: Hub, ask: Callable[[Hub], Answer]) -> Future[Answer]:
    """Asks in a thread that nobody has to wait for: a hub that never answers can't hold up the program's end."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(ask(hub))
        except BaseException as error:  # noqa: BLE001  whoever waits for the answer hears of it
            future.set_exception(error)

    threading.Thread(target=run, name=f"ask-{hub.source}", daemon=True).start()
    return future


def _fetch(wanted: Wanted, offer: Offer, target: Path, progress: Progress) -> None:
    """From one hub. Raises HubError where another may do better, WeightsError where the disk refuses."""
    if size_of(target) == offer.size and sha256_of(target) == offer.sha256:
        return
    part = target.with_name(f"{target.name}.{offer.sha256[:PART_DIGITS]}.part")
    have = size_of(part)
    refuse_full_disk(wanted.name, offer.size - have, part.parent)
    licence = f", {wanted.licence}" if wanted.licence else ""
    begun = f", from {have / 1e6:.0f} MB on" if have else ""
    described = f"{offer.size / 1e6:.0f} MB{licence}"
    progress.say(f"Fetching {wanted.name} ({described}) from {offer.hub.title}: {offer.file}{begun}")
    _transfer(offer, part, progress)
    progress.say("Checking its sha256.")
    if sha256_of(part) != offer.sha256:
        part.unlink()
        raise HubError("gave out something else than it tells: its sha256 differs. It was deleted")
    with disk_errors(target):
        part.replace(target)
        for leftover in parts_of(target):
            leftover.unlink()


def _transfer(offer: Offer, part: Path, progress: Progress) -> None:
    try:
        fetch(offer.remote, part, offer.size, progress)
    except BrokenOff as error:
        raise HubError(f"broke off at {size_of(part) / 1e6:.0f} of {offer.size / 1e6:.0f} MB") from error
    except WrongSize as error:
        raise HubError("gave out something else than it tells: its size differs") from error
    except Silent as error:
        raise HubError("sent nothing of the file") from error
    except Unreadable as error:
        raise offer.hub.refusal(error.status, offer.file.repository) from error


def _said(hub: Hub, error: HubError) -> str:
    return f"{hub.title[0].upper()}{hub.title[1:]} {error}."
