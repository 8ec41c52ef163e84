"""Model files that are served without being configured: loaded when they are asked for, each in a process of its own,
and unloaded when nobody wants them any more.

    shelf                    the files that are there, and what their heads say
    residents                who is loaded, who waits for a place, who has to go
    frames, host, remote     the calls of a backend over a pipe, without the pipe
    worker, process          the program of a model's process, and that process as its parent has it
    backend                  the backend that the house knows
"""
