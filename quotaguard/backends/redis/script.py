"""The Lua, as one script, and how to call it in one round trip."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

_PARTS = (
    "books",
    "bucket",
    "records",
    "line",
    "settle",
    "reserve",
    "peek",
    "adjust",
    "merge",
    "batch",
)
"""Files of ``lua/``; each uses what stands before it."""


_CONSTANTS = re.compile(
    r"^local ([A-Z_]+(?:, [A-Z_]+)*) = ([^\n]*?) *(?:--[^\n]*)?\n", re.MULTILINE
)


@lru_cache(maxsize=1)
def text() -> bytes:
    """The whole script: the parts share their local functions, so they are one chunk.

    Constants (in capitals) are put in where they are used: as locals that every function captures
    they would cost 10 µs of each call.
    """
    folder = files("quotaguard.backends") / "lua"
    lua = "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in _PARTS)
    constants: dict[str, str] = {}
    for names, values in _CONSTANTS.findall(lua):
        constants |= zip(names.split(", "), values.split(", "), strict=True)
    lua = _CONSTANTS.sub("", lua)
    word = re.compile(rf"(?<!')\b({'|'.join(constants)})\b(?!')")
    return word.sub(lambda found: constants[found[0]], lua).encode()


@lru_cache(maxsize=1)
def sha() -> str:
    """What EVALSHA calls it by."""
    return hashlib.sha1(text(), usedforsecurity=False).hexdigest()


def call(client: Any, keys: tuple[bytes, ...], argument: bytes) -> list[bytes]:
    """Run the script; a server that does not know it yet is sent its text."""
    connection = getattr(client, "connection", None)
    rest = len(keys), *keys, argument
    try:
        return _ask(client, connection, "EVALSHA", sha(), *rest)
    except NoScriptError:
        return _ask(client, connection, "EVAL", text(), *rest)


def _ask(client: Any, connection: Any, *command: Any) -> list[bytes]:
    """Send a command over a client's only connection, if it has just one: what else a client does
    for a call (retries, callbacks, a lock) takes a third of its time and is not needed here.
    """
    if connection is None:
        return client.execute_command(*command, NEVER_DECODE=True)  # type: ignore[no-any-return]
    try:
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)  # type: ignore[no-any-return]
    except ResponseError:
        raise
    except BaseException:  # interrupted in between: the reply must not be the next call's
        connection.disconnect()
        raise


async def acall(client: Any, keys: tuple[bytes, ...], argument: bytes) -> list[bytes]:
    """`call`, awaiting."""
    rest = len(keys), *keys, argument
    try:
        return await client.execute_command("EVALSHA", sha(), *rest, NEVER_DECODE=True)  # type: ignore[no-any-return]
    except NoScriptError:
        return await client.execute_command("EVAL", text(), *rest, NEVER_DECODE=True)  # type: ignore[no-any-return]
