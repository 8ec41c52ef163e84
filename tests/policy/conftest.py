from support.databases import session_postgres, store, store_url

__all__ = ["session_postgres", "store", "store_url"]
