"""One request while it is answered: its choices, each on a lane of its own, and the chunks they make."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TypeAlias

from msgspec import Struct

from chatport.backends.llama.admission import Admission, Entry
from chatport.backends.llama.generation import Ending, Generation, Model, Task
from chatport.backends.llama.reader import Saying
from chatport.backends.llama.slots import Place, Slots
from chatport.wire.errors import ApiError, InternalError

log = logging.getLogger("chatport")

Outcome: TypeAlias = Ending | ApiError | None
Event: TypeAlias = tuple[int, Saying | Outcome]
"""What a choice of this index says; an Outcome is its last word."""


class Feed:
    """A queue from threads to the event loop. One wake-up serves all that came before it was answered."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._come = asyncio.Event()
        self._called = False

    def put(self, event: Event) -> None:
        """From any thread. Raises RuntimeError when the loop is gone."""
        self._events.append(event)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._wake)

    async def take(self) -> Event:
        while not self._events:
            self._come.clear()
            await self._come.wait()
        return self._events.popleft()

    def _wake(self) -> None:
        self._called = False
        self._come.set()


class Room(Struct, frozen=True):
    """What all answers of a model share."""

    model: Model
    admission: Admission
    slots: Slots


class Answer:
    """The choices of one request. `events` says what they say; `leave` ends what is still running."""

    def __init__(self, room: Room, tasks: list[Task], *, exact: bool) -> None:
        self._room = room
        self._tasks = deque(tasks)
        self._exact = exact
        self._left = False
        self._loop = asyncio.get_running_loop()
        self._feed = Feed()
        self._idle = asyncio.Event()
        self._idle.set()
        cells = max(len(task.prompt) + task.limit for task in tasks)
        # Side by side, an exact answer's choices would depend on how the engine happened to batch them.
        self._entry = Entry(self._begin, cells=cells, choices=len(tasks), width=1 if exact else None)

    async def events(self) -> AsyncGenerator[tuple[int, Saying | Ending], None]:
        """What the choices say, in the order they say it. Raises ApiError."""
        running = len(self._tasks)
        self._room.admission.enter(self._entry)
        while running:
            index, event = await self._feed.take()
            if isinstance(event, ApiError):
                raise event
            if isinstance(event, Ending):
                running -= 1
            if event is not None:
                yield index, event

    async def leave(self) -> None:
        """Ends what is running, and returns when the engine has let go of it: at the next token, or batch of a prompt.
        What was held is given back then, waited for or not."""
        self._left = True
        self._room.admission.withdraw(self._entry)
        await self._idle.wait()

    def _begin(self) -> None:
        """There is a lane for the next choice."""
        task = self._tasks.popleft()
        place = self._room.slots.take(task.prompt, exact=self._exact)
        began = self._loop.time()
        self._idle.clear()
        generation = Generation(
            self._room.model,
            task,
            place,
            say=lambda said: self._feed.put((task.choice, said)),
            left=lambda: self._left,
        )

        def work() -> None:
            outcome = _outcome(generation)
            with suppress(RuntimeError):  # the loop is gone: nobody is left to hear it
                self._loop.call_soon_threadsafe(self._ended, task.choice, place, began, generation, outcome)

        try:
            self._room.model.engine.start(work)
        except ApiError as error:
            self._loop.call_soon(self._ended, task.choice, place, began, generation, error)

    def _ended(self, choice: int, place: Place, began: float, generation: Generation, outcome: Outcome) -> None:
        """The lane is free again, before anybody hears that the choice has ended."""
        self._room.slots.give_back(place, read=generation.prompt_read)
        self._room.admission.release(self._entry, self._loop.time() - began)
        if not self._entry.lanes:
            self._idle.set()
        self._feed.put((choice, outcome))


def _outcome(generation: Generation) -> Outcome:
    try:
        return generation.run()
    except ApiError as error:
        return error
    except Exception as exc:
        log.error("an answer ended for a reason that was not foreseen", exc_info=exc)
        unforeseen = InternalError()
        unforeseen.__cause__ = exc
        return unforeseen
