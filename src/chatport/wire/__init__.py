"""The formats, without I/O: what a request, an answer, a chunk and an error look like, and what may follow what."""
