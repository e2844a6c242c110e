"""`patch`: for code whose client cannot be reached, every client of the SDKs made a guarded one.

All clients of an SDK end in the ``request`` of its base class, so that is what is replaced. Each
request is made by a guarded twin that shares its client's state for as long as it lasts: there is
one seam, with or without `patch`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from ..errors import ConfigurationError
from ..guard import Guard
from ..identity import Who
from ..limits import Limit
from .sdk import Sdk
from .seam import AsyncSeam, Binding, SyncSeam, bind, derived, no_socket, sockets

_lock = threading.Lock()
_active: Patch | None = None


def patch(
    *,
    guard: Guard | None = None,
    limits: Iterable[str | Limit] | None = None,
    user: Who = None,
    tier: Who = None,
    org: Who = None,
) -> Patch:
    """Guard every client of the installed SDKs, those of Azure, Bedrock and Vertex and your own
    subclasses included, whoever made them and whenever.

    Clients that are guarded already go on as they do, through their own guard alone. It loads the
    SDKs that are installed. Keep what it returns: its ``undo()`` puts everything back, and so does
    the end of a ``with`` block.

    Args:
        guard: the `Guard` to go through; default: the one of ``quotaguard.toml`` or the
            environment.
        limits: instead of a guard: the limits of a private one, such as ``["10k tokens/day"]``.
        user, tier, org: whom calls are charged to; a string, or a callable asked at each call.
            `acting_as` goes before them.

    Raises:
        ConfigurationError: an argument is wrong, neither SDK is installed, or the clients are
            patched already.
    """
    global _active
    given = {"guard": guard, "limits": limits, "user": user, "tier": tier, "org": org}
    binding = bind(given)
    names = [name for name in ("openai", "anthropic") if find_spec(name) is not None]
    if not names:
        raise ConfigurationError("patch() found no SDK: pip install 'quotaguard[openai]'")
    sdks = [import_module(f".{name}", __package__).SDK for name in names]
    with _lock:
        if _active is not None:
            raise ConfigurationError("the clients are patched already: undo() that patch() first")
        _active = Patch(binding, sdks)
        return _active


class Patch:
    """What `patch` did: ``undo()`` puts it back, and so does the end of a ``with`` block."""

    def __init__(self, binding: Binding, sdks: Iterable[Sdk]) -> None:
        self._binding = binding
        self._on = True
        self._replaced: list[tuple[type, str, Any, Any]] = []
        for sdk in sdks:
            for base, seam in sdk.bases:
                for cls in _family(base, seam):
                    self._replace(cls, "request", self._request(sdk, seam, vars(cls)["request"]))
            if binding.guard.strict and sdk.provider.sockets:
                self._close_sockets(sdk)

    def __repr__(self) -> str:
        return f"<quotaguard patch, {'on' if self._on else 'undone'}>"

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.undo()

    def undo(self) -> None:
        """Leave the clients as they were before. Calls that run are settled; a second undo does
        nothing.
        """
        global _active
        with _lock:
            if not self._on:
                return
            self._on = False
            _active = None
            for cls, name, before, ours in reversed(self._replaced):
                if vars(cls).get(name) is ours:  # else somebody holds ours, which now does nothing
                    setattr(cls, name, before)

    def _replace(self, cls: type, name: str, ours: Any) -> None:
        self._replaced.append((cls, name, vars(cls)[name], ours))
        setattr(cls, name, ours)

    def _request(self, sdk: Sdk, seam: Any, before: Any) -> Any:
        """``request`` while the patch is on: that of a guarded twin, which goes on to ``before``.

        Somebody else may have replaced ``request`` too, or may do so later, in a class above or
        below: hence ``before``, and not what the client's class says by then.
        """
        binding = self._binding
        twins: dict[type, type] = {}

        class Onward:
            __slots__ = ()
            _quotaguard = binding
            # A chain holds the client that built it, and the state that is shared the plain one's.
            _middleware_chain = property(lambda it: it._build_middleware_chain(), lambda *_: None)

            def request(self, *args: Any, **kwargs: Any) -> Any:
                return before.__get__(self, type(self))(*args, **kwargs)

        def twin(client: Any) -> Any:
            cls = type(client)
            if cls not in twins:
                twins[cls] = derived(cls, sdk, seam, Onward)
            made: Any = object.__new__(twins[cls])
            made.__dict__ = client.__dict__
            return made

        @functools.wraps(before)
        def request(client: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._on or isinstance(client, seam):
                return before.__get__(client, type(client))(*args, **kwargs)
            return seam.request(twin(client), *args, **kwargs)  # not the twin's: see vars(client)

        @functools.wraps(before)
        async def arequest(client: Any, *args: Any, **kwargs: Any) -> Any:
            return await request(client, *args, **kwargs)

        return arequest if seam is AsyncSeam else request

    def _close_sockets(self, sdk: Sdk) -> None:
        """Strict: no client may open a web socket, but for those with a guard of their own."""
        for client in sdk.samples():
            for resource in sockets(client, sdk):
                self._replace(type(resource), "connect", self._connect(type(resource).connect))

    def _connect(self, before: Any) -> Any:
        @functools.wraps(before)
        def connect(resource: Any, *args: Any, **kwargs: Any) -> Any:
            if self._on and not isinstance(resource._client, (SyncSeam, AsyncSeam)):
                no_socket()
            return before(resource, *args, **kwargs)

        return connect


def _family(base: type, seam: type) -> Iterator[type]:
    """The classes from ``base`` down that have a ``request`` of their own; no guarded ones."""
    seen: set[type] = set()
    left = [base]
    while left:
        cls = left.pop()
        if cls not in seen and not issubclass(cls, seam):
            seen.add(cls)
            left += cls.__subclasses__()
            if "request" in vars(cls):
                yield cls
