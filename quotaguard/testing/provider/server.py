"""`FakeProvider`: the server that people hold."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from .errors import error_body
from .exchange import Stage, answer
from .framing import to_json
from .ratelimits import RateLimits
from .record import Record, Seen, Served
from .replies import Reply
from .stored import StoredResponses
from .wire import Connection, Malformed, Server, head

_MODELS = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "claude-opus-5")


class FakeProvider:
    """A provider on this machine that speaks OpenAI's and Anthropic's APIs over real HTTP.

    It serves from the moment it is made until `close()`, or to the end of a `with` block:

        with FakeProvider(reply=Reply(text="Hello.", input_tokens=12, output_tokens=7)) as provider:
            client = OpenAI(base_url=provider.openai_url, api_key="test")

    Azure's client takes `azure_endpoint=provider.url`, Bedrock's `base_url=provider.url`, Vertex's
    `base_url=provider.openai_url`. Any prefix before the known paths is tolerated. A path that is
    not known is a 404, unless a reply has a `body` or a `status` for it.

    Args:
        reply: what requests are answered with: a reply, or a function of the request, which is
            called in the threads that serve, several at once. What it raises becomes a 500.
        port: the port to listen on at 127.0.0.1; 0 lets the system choose.
        rpm: requests a minute that the provider lets through, over all clients; more gets a 429.
        tpm: tokens a minute, input and output together.
        clock: seconds for these limits, never going back.
        models: what the list of models holds; any other model is answered too.
        remember: how many requests `requests` keeps, the latest; `None` for all of them.

    Raises:
        ValueError: a limit below one, or no models.
        TypeError: `reply` is neither a reply nor a function.
        OSError: the port is taken.
    """

    def __init__(
        self,
        reply: Reply | Callable[[Seen], Reply] | None = None,
        *,
        port: int = 0,
        rpm: int | None = None,
        tpm: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        models: Sequence[str] = _MODELS,
        remember: int | None = None,
    ) -> None:
        if not models:
            raise ValueError("models must name one model at least, not none")
        if not (reply is None or isinstance(reply, Reply) or callable(reply)):
            raise TypeError(f"reply must be a Reply or a function that gives one, not {reply!r}")
        self._reply = Reply() if reply is None else reply
        self._queue: deque[Reply] = deque()
        self._record = Record(remember)
        limits = RateLimits(rpm, tpm, clock)
        self._server = Server(port, self._serve)
        self._stage = Stage(
            self._next_reply,
            self._record,
            limits,
            StoredResponses(),
            tuple(models),
            self._server.closing,
        )

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def openai_url(self) -> str:
        """The `base_url` for OpenAI's client."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """The `base_url` for Anthropic's client."""
        return self.url

    @property
    def requests(self) -> list[Seen]:
        """Every HTTP request so far, retries included, in the order they came, as it stands now."""
        return self._record.requests

    @property
    def served(self) -> Served:
        """Sums of the usage really reported to clients, in all and by model."""
        return self._record.served

    def enqueue(self, *replies: Reply) -> None:
        """Has the next requests answered with these, one each, in order, before `reply` again.

        Raises:
            TypeError: one of them is no `Reply`.
        """
        for reply in replies:
            _checked(reply)
        self._queue.extend(replies)

    def wait_until(
        self, condition: Callable[[list[Seen]], bool], *, timeout: float = 5.0
    ) -> list[Seen]:
        """Blocks until the requests meet a condition, such as one having arrived; returns them.

        Raises:
            TimeoutError: they did not within `timeout` seconds.
        """
        return self._record.wait_until(condition, timeout)

    def clear(self) -> None:
        """Forgets what was seen, served and enqueued; limits and stored responses stay."""
        self._queue.clear()
        self._record.clear()

    def close(self) -> None:
        """Stops serving at once: connections are closed, whatever they are doing."""
        self._server.close()

    def __enter__(self) -> FakeProvider:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FakeProvider({self.url!r})"

    def _next_reply(self, seen: Seen) -> Reply:
        try:
            return self._queue.popleft()
        except IndexError:
            return self._reply if isinstance(self._reply, Reply) else _checked(self._reply(seen))

    def _serve(self, connection: Connection) -> None:
        try:
            while (request := connection.read()) is not None:
                if not answer(self._stage, connection, request):
                    return
        except Malformed as error:
            body = to_json(error_body("openai", 400, str(error))[0])
            headers = {"content-length": str(len(body)), "connection": "close"}
            connection.send(head(400, {"content-type": "application/json", **headers}) + body)


def _checked(reply: Reply) -> Reply:
    if not isinstance(reply, Reply):
        raise TypeError(f"a request is answered with a Reply, not {reply!r}")
    return reply
