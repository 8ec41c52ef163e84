"""What the store raises; the messages are for logs and the command line, never for clients.

StoreError              the base: nothing else of a driver's leaves this room for reasons outside the program
├── StoreUnavailable    no answer from the database, or not in time; worth trying again
├── StoreIncompatible   the database was written by a newer version of the program
└── StoreMisconfigured  the address or an installed part is wrong; said before anything is opened
"""

from __future__ import annotations


class StoreError(Exception):
    """Something about the database, in a sentence."""


class StoreUnavailable(StoreError):
    """The database does not answer: not reachable, locked for too long, out of space, closed."""


class StoreIncompatible(StoreError):
    """The schema's revision is one that this version of the program does not know."""


class StoreMisconfigured(StoreError):
    """`store.url` can't be used, or a driver is not installed."""
