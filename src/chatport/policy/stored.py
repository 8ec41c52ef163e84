"""Stored completions (contract.md §14): who sees which, in what order, a page at a time.

A completion belongs to the key that made it; to every other key it does not exist. Pages follow the time of creation
and, where that is equal, the order of saving, so that walking through them shows each item once.
"""

from __future__ import annotations

from msgspec import UNSET, json, structs

from chatport.policy.keys import Caller
from chatport.store.completions import CompletionRow, CompletionRows, Selection, keeping
from chatport.store.database import Work
from chatport.wire.chat import ChatCompletion, ChatRequest, Message
from chatport.wire.errors import NotFound, quote
from chatport.wire.stored import (
    CompletionDeleted,
    CompletionList,
    CompletionQuery,
    MessageList,
    Page,
    completion_list,
    message_list,
    stored_message,
)

_completion = json.Decoder(ChatCompletion)
_messages = json.Decoder(list[Message])


def saving(caller: Caller, completion: ChatCompletion, request: ChatRequest) -> Work[None]:
    """What keeps a finished completion and the messages it answered."""
    row = CompletionRow(
        id=completion.id,
        key_id=caller.key_id,
        created_at=completion.created,
        model=completion.model,
        requested_model=request.model,
        body=json.encode(structs.replace(completion, metadata=UNSET)),
        metadata=request.metadata,
    )
    return keeping(row, json.encode(request.messages))


class StoredCompletions:
    """The rules of §14 over the rows. Raises NotFound; a store that does not answer raises StoreUnavailable."""

    def __init__(self, rows: CompletionRows) -> None:
        self._rows = rows

    async def get(self, caller: Caller, completion_id: str) -> ChatCompletion:
        row = await self._rows.get(caller.key_id, completion_id)
        if row is None:
            raise _no_completion(completion_id)
        return _as_completion(row)

    async def update_metadata(
        self, caller: Caller, completion_id: str, metadata: dict[str, str] | None
    ) -> ChatCompletion:
        """Replaces all metadata; None clears it."""
        row = await self._rows.set_metadata(caller.key_id, completion_id, metadata)
        if row is None:
            raise _no_completion(completion_id)
        return _as_completion(row)

    async def delete(self, caller: Caller, completion_id: str) -> CompletionDeleted:
        if not await self._rows.remove(caller.key_id, completion_id):
            raise _no_completion(completion_id)
        return CompletionDeleted(id=completion_id)

    async def messages(self, caller: Caller, completion_id: str, page: Page) -> MessageList:
        """A page of the input messages, `asc` being the order they were sent in."""
        encoded = await self._rows.messages(caller.key_id, completion_id)
        if encoded is None:
            raise _no_completion(completion_id)
        # As OpenAI's: the completion's id and the message's place in the request.
        listed = {f"{completion_id}-{place}": message for place, message in enumerate(_messages.decode(encoded))}
        ids = list(listed) if page.order == "asc" else list(reversed(listed))
        if page.after is not None:
            if page.after not in listed:
                raise NotFound(f"No message with id {quote(page.after)} in this completion: 'after' names none.")
            ids = ids[ids.index(page.after) + 1 :]
        shown = [stored_message(message_id, listed[message_id]) for message_id in ids[: page.limit]]
        return message_list(shown, has_more=len(ids) > page.limit)

    async def list(self, caller: Caller, query: CompletionQuery) -> CompletionList:
        """A page of the caller's completions; a model matches by the name asked for or the name that answered."""
        after = None
        if query.after is not None:
            after = await self._rows.get(caller.key_id, query.after)
            if after is None:
                raise NotFound(f"No stored completion with id {quote(query.after)}: 'after' names none.")
        wanted = Selection(
            key_id=caller.key_id,
            model=query.model,
            metadata=query.metadata,
            after=after,
            limit=query.limit + 1,
            descending=query.order == "desc",
        )
        rows = await self._rows.page(wanted)
        return completion_list([_as_completion(row) for row in rows[: query.limit]], has_more=len(rows) > query.limit)


def _as_completion(row: CompletionRow) -> ChatCompletion:
    return structs.replace(_completion.decode(row.body), metadata=row.metadata)


def _no_completion(completion_id: str) -> NotFound:
    return NotFound(f"No stored completion with id {quote(completion_id)}.")
