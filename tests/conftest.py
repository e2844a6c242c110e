"""What every test gets: versions in the header, a clean environment, no way past this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from hypothesis import settings

_VERSIONS = ("openai", "anthropic", "httpx", "httpx2", "pydantic", "tiktoken", "redis")
_CALLERS_OWN = ("ANTHROPIC_", "AWS_", "AZURE_", "GOOGLE_", "OPENAI_", "QUOTAGUARD_")
_HERE = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"}

# The default profile (or Hypothesis's own for CI), but a busy machine is no failing test.
settings.register_profile("quotaguard", parent=settings.default, deadline=None)
settings.load_profile("quotaguard")


def pytest_report_header() -> str:
    """The versions that a failure may depend on."""
    found = []
    for name in _VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return "with: " + ", ".join(found)


@pytest.fixture
def anyio_backend() -> str:
    """Async tests (``@pytest.mark.anyio``) run on asyncio, as the SDKs' users do."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No key, proxy or configuration of whoever runs the tests takes part in them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_CALLERS_OWN) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _stay_on_this_machine() -> Iterator[None]:
    """Names resolve as on a machine without a network, so the tests pass or fail alike on both."""
    resolve = socket.getaddrinfo

    def resolve_loopback(host: Any, *args: Any, **kwargs: Any) -> Any:
        if (host.decode() if isinstance(host, bytes) else host) in _HERE:
            return resolve(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, f"tests stay on this machine, {host!r} is not")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve_loopback)
        yield
