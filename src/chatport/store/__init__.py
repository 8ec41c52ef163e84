"""Durable rows: the schema, its migrations, SQLite by default and PostgreSQL by URL. No other room holds SQL."""

from chatport.store.store import Store, open_store

__all__ = ["Store", "open_store"]
