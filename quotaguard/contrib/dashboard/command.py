"""``quotaguard dashboard``: serve it on this machine, to whoever has the link that is printed."""

from __future__ import annotations

import getpass
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...backends.memory import MemoryBackend
from ...config import default_guard, load_guard
from ...errors import ConfigurationError
from . import dashboard

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

HOST = "127.0.0.1"
"""Nobody else's machine: what is sent is not encrypted. A tunnel (``ssh -L``) leads here."""


class Door:
    """Who may see it: the browser that came with a link. Each link lets one browser in.

    Args:
        admin: the name that stands beside what is done there.
        port: where it is; cookies do not tell the ports of a host apart by themselves.
        announce: is told of the next link.
    """

    def __init__(self, admin: str, port: int, announce: Callable[[str], object]) -> None:
        self._admin = admin
        self._port = port
        self._announce = announce
        self._cookie = f"quotaguard_{port}"
        self._session = secrets.token_urlsafe(32)
        self._token = ""
        self.renew()

    def renew(self) -> None:
        """Make another link; the one before is of no more use."""
        self._token = secrets.token_urlsafe(32)
        self._announce(f"http://{HOST}:{self._port}/?token={self._token}")

    async def __call__(self, connection: HTTPConnection) -> str | None:
        """The admin, by the cookie that a link was traded for."""
        from starlette.exceptions import HTTPException

        if _same(connection.cookies.get(self._cookie, ""), self._session):
            return self._admin
        given = connection.query_params.get("token")
        if given is None:
            raise HTTPException(403, "Open the link that `quotaguard dashboard` printed.")
        if not _same(given, self._token):
            raise HTTPException(
                403, "That link was used before. Open the last one that was printed."
            )
        self.renew()
        cookie = f"{self._cookie}={self._session}; HttpOnly; SameSite=Strict"
        raise HTTPException(303, headers={"location": "./", "set-cookie": cookie})


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


@click.command("dashboard")
@click.option("--config", type=click.Path(path_type=Path), help="default: as for clients")
@click.option("--journal", help="where the journal is: a path, or sqlite:///usage.db")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8765, show_default=True, help="on 127.0.0.1"
)
@click.option("--tz", default="UTC", show_default=True, help="the time zone of what is shown")
@click.option("--by", help="the name that stands beside grants  [default: yours on this machine]")
def command(config: Path | None, journal: str | None, port: int, tz: str, by: str | None) -> None:
    """Serve the dashboard on this machine and print the link that opens it."""
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise click.ClickException(
            "the dashboard needs uvicorn: pip install 'quotaguard[dashboard]'"
        ) from error
    try:
        guard = load_guard(config) if config is not None else default_guard()
        if journal is not None:
            guard.keep_journal(journal)
        door = Door(by or _me(), port, lambda link: click.echo(f"Open {link} (in one browser)"))
        app: Any = dashboard(guard, authorize=door, tz=tz)
    except (ConfigurationError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    if isinstance(guard.backend, MemoryBackend):
        click.echo(
            "The ledger is the memory of this process: the levels are not those of your app, and "
            "grants do not reach it. Name the backend that it uses.",
            err=True,
        )
    # No access log: it would have the token.
    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False)
    guard.close()


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return "quotaguard dashboard"
