"""Numbers that live shortly and that every request moves: buckets of requests and tokens, places in use.

`contract.py` is what a home of such numbers promises, `buckets.py` the arithmetic, `memory.py` the home that every
process has for itself. One that several processes share keeps the same promises.
"""
