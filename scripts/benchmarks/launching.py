"""Processes that find the environment that torchrun would give them."""

import os
import socket
import traceback
from collections.abc import Callable

FAILED = 70


def launch(work: Callable[[], int], world: int) -> list[int]:
    """Statuses of ``world`` forked processes that do ``work``; ``FAILED`` is for a traceback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            named = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_PORT": port}
            os.environ |= {key: str(value) for key, value in named.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": str(world)}
            status = FAILED
            try:
                status = work()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
