"""torch's stores on this machine alone: the launcher's would listen on every interface, and unpickle what comes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend

LOOPBACK = "127.0.0.1"


class _StoreOnLoopback(dist.TCPStore):
    def __init__(self, host_name: str, port: int, *, is_master: bool = False, **options: Any) -> None:
        if is_master:
            listener = socket.create_server((LOOPBACK, port))
            port, options["master_listen_fd"] = listener.getsockname()[1], listener.detach()
        super().__init__(host_name, port, is_master=is_master, **options)


@contextmanager
def stores_on_loopback() -> Iterator[None]:
    """Stores that the launcher makes meanwhile are reached from this machine alone."""
    rooms, original = (dist, c10d_rendezvous_backend), dist.TCPStore
    for room in rooms:
        setattr(room, "TCPStore", _StoreOnLoopback)  # noqa: B010 - a type, to which mypy lets nothing be assigned
    try:
        yield
    finally:
        for room in rooms:
            setattr(room, "TCPStore", original)  # noqa: B010
