"""What the two SDKs have in common: the names of their errors and the shape of their clients."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ModelNotAllowed, QuotaExceeded, QuotaguardError
from ..providers import Provider
from .seam import AsyncSeam, SyncSeam

_NEVER_CONNECTED = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
"""Errors of httpx and httpx2, by name, that come before a request is sent."""


class Sdk:
    """An SDK as `quotaguard.clients.call.Sdk`.

    Args:
        module: the SDK's top module.
        base: its module of base clients.
        provider: whose API it speaks.
        errors: our plain refusal -> the class that is the SDK's error too.
        body: the provider's error body for a refusal, and the part of it that the SDK's error
            carries as ``body``.
    """

    def __init__(
        self,
        module: Any,
        base: Any,
        provider: Provider,
        errors: Mapping[type[QuotaguardError], Callable[..., QuotaguardError]],
        body: Callable[[QuotaExceeded | ModelNotAllowed], tuple[dict[str, Any], dict[str, Any]]],
    ) -> None:
        self.provider = provider
        self.bases = ((base.SyncAPIClient, SyncSeam), (base.AsyncAPIClient, AsyncSeam))
        """The classes that all clients derive from, blocking and awaiting, with their seams."""
        self._module = module
        self._default_timeout, self._not_given = base.DEFAULT_TIMEOUT, base.NotGiven
        self._errors = errors
        self._body = body

    def seam_of(self, client: object) -> type | None:
        """The seam for a client of this SDK; None if it is not one."""
        return next((seam for base, seam in self.bases if isinstance(client, base)), None)

    def samples(self) -> tuple[Any, Any]:
        """A blocking client and an awaiting one, to look at their resources."""
        options = {"api_key": "none", "base_url": "http://localhost"}
        return self._module.Client(**options), self._module.AsyncClient(**options)

    def refusal(self, error: QuotaExceeded | ModelNotAllowed, client: Any, url: str) -> Exception:
        """The refusal as an error of the SDK's own kind too, with a response that can be read like
        a real one.
        """
        whole, part = self._body(error)
        http = _http_of(client)
        headers = {"content-type": "application/json", "x-should-retry": "false"}
        facts = error.as_dict()
        if isinstance(error, QuotaExceeded):
            facts |= {"retry_after": error.retry_after, "note": error.note}
            if math.isfinite(error.retry_after):
                headers["retry-after"] = str(math.ceil(error.retry_after))
                headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
        else:
            facts["allowed"] = error.allowed
        response = http.Response(
            error.status_code,
            headers=headers,
            content=json.dumps(whole).encode(),
            request=http.Request("POST", url),
        )
        return self._errors[type(error)](**facts, response=response, body=part)

    def timeout(self, client: Any, options: Any) -> float | None:
        """Seconds that a request may wait before it is sent: of a timeout in parts that for a
        connection (``pool``), which is httpx's own for waiting in line.

        The SDK's default of ten minutes is nobody's wish, so it does not count: Anthropic's puts it
        into the options of every message.
        """
        said = options.timeout
        if isinstance(said, self._not_given):
            said = client.timeout
        seconds = getattr(said, "pool", said)
        return None if seconds in (None, self._default_timeout.pool) else float(seconds)

    def is_timeout(self, error: BaseException) -> bool:
        """Whether the SDK gave up waiting: the provider may have done the work."""
        return isinstance(error, self._module.APITimeoutError)

    def is_clean(self, error: BaseException) -> bool:
        """Whether the provider surely did no work: an error status, or no connection.

        A connection that broke later is another thing: the request may have been served.
        """
        if isinstance(error, self._module.APIConnectionError):
            return type(error.__cause__).__name__ in _NEVER_CONNECTED
        return isinstance(error, self._module.APIStatusError)


def _http_of(client: Any) -> Any:
    """The HTTP library that a client uses: httpx or httpx2."""
    for cls in type(client._client).__mro__:
        module = importlib.import_module(cls.__module__.partition(".")[0])
        if cls.__name__ in ("Client", "AsyncClient") and hasattr(module, "Response"):
            return module
    raise TypeError(f"unknown HTTP client {type(client._client).__name__}")
