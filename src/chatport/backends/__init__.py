"""Request in, chunks or a completion out. `base.py` says what a backend is; one suite holds every one to it."""
