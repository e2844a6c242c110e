"""A dashboard for operators: who uses what, what is left, what limits refused, cost and saved; and
grants and resets (extra ``quotaguard[dashboard]``).

app.mount("/quotas", dashboard(guard, authorize=who_is_admin))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from ...errors import ConfigurationError
from ...guard import Guard
from ...windows import zone
from ..asgi import App

if TYPE_CHECKING:  # the command line imports this package whether Starlette is there or not
    from starlette.requests import HTTPConnection

    Authorize: TypeAlias = Callable[[HTTPConnection], str | Awaitable[str | None] | None]


def dashboard(
    guard: Guard,
    *,
    authorize: Authorize | None = None,
    tz: str = "UTC",
    secret: bytes | None = None,
    origins: Iterable[str] = (),
) -> App:
    """The dashboard of a guard, an ASGI app to mount or to serve by itself.

    What was comes from the guard's journal, and levels from its ledger. Without a journal that can
    be read back it shows levels only.

    Args:
        guard: whose ledger and journal it shows, and through which it grants.
        authorize: says who the admin is that a connection comes from, by name, or None if it is
            none; that name stands beside each grant. It is given a Starlette ``HTTPConnection``,
            which is also a mapping, the ASGI scope; it may be a coroutine function, and runs in a
            thread if it is not. It may raise Starlette's ``HTTPException``, to send somebody to a
            login. Without it every request is answered 403.
        tz: the IANA time zone of what is shown.
        secret: seals forms (default: random). Workers that serve one dashboard need the same.
        origins: origins such as ``"https://admin.example.com"`` under which browsers see it, where
            a proxy changes ``Host``.

    Raises:
        ConfigurationError: an argument is wrong.
        ImportError: the extra is not installed.
    """
    if not isinstance(guard, Guard):
        raise ConfigurationError(f"a dashboard is of a Guard, not {guard!r}")
    if authorize is not None and not callable(authorize):
        raise ConfigurationError(f"authorize is a callable of a connection, not {authorize!r}")
    if secret is not None and not (isinstance(secret, bytes) and len(secret) >= 16):
        raise ConfigurationError("secret is of 16 bytes or more")
    origins = frozenset((origins,) if isinstance(origins, str) else origins)
    for origin in origins:
        if "://" not in origin or origin.endswith("/"):
            raise ConfigurationError(
                f"an origin is such as 'https://admin.example.com', not {origin!r}"
            )
    zone(tz)
    try:
        from .app import make_app
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "starlette"):
            raise
        raise ImportError(
            f"the dashboard needs {error.name}: pip install 'quotaguard[dashboard]'"
        ) from error
    return make_app(guard, authorize, tz, secret, origins)
