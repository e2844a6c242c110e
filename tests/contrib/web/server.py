"""Real servers for the tests: uvicorn on a free loopback port, and a plain client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn

from quotaguard import Guard


class Answer(NamedTuple):
    """What a server said."""

    status: int
    fields: dict[str, str]
    """By lower-case name."""
    body: str

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[int]:
    """The port that an ASGI app is served on."""
    config = uvicorn.Config(app, port=0, log_level="critical", ws="none", **options)
    server = uvicorn.Server(config)
    with config.bind_socket() as listener:
        listener.listen(2048)  # early callers wait
        port: int = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def asking(
    port: int, path: str, user: str | None = "alice", body: Any = None, **fields: str
) -> Iterator[http.client.HTTPResponse]:
    """A response whose body is still to be read; leaving the block hangs up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    if user is not None:
        fields["x-user"] = user
    fields["content-type"] = "application/json"
    try:
        connection.request("POST", path, json.dumps(body or {}), fields)
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def ask(
    port: int, path: str, user: str | None = "alice", body: Any = None, **fields: str
) -> Answer:
    """A whole answer."""
    with asking(port, path, user, body, **fields) as response:
        said = response.read().decode()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, said)


def settled(guard: Guard, user: str = "alice", **who: Any) -> float:
    """What a user's day has left once nothing is held of it (a thread may be settling)."""
    deadline = time.monotonic() + 10
    while (state := guard.peek(user=user, **who)[0]).held and time.monotonic() < deadline:
        time.sleep(0.005)
    assert state.held == 0
    return state.left
