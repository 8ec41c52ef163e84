"""HTTP/1.1 to upstreams: one keep-alive pool per origin, on asyncio's protocols and httptools.

Ours, because general clients cost 80 to 400 µs a request and this is what a gateway does all day. Rules of the room: a
request's bytes are made elsewhere; here nothing is known of JSON, models or keys. `connection.py` is one connection and
needs no socket to be tested; `dial.py` opens one; `pool.py` keeps and lends them; `proxies.py` says which go through a
proxy, `tunnels.py` is what the proxy is told; `faults.py` is everything that can go wrong.
"""
