"""What the responses of a guarded call say of the provider's own limits."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..core.lease import Lease
from ..guard import Guard
from ..providers import Provider
from ..upstream import Upstream

log = logging.getLogger("quotaguard")

_PARTS = ("organization", "project", "aws_region", "aws_access_key", "region", "project_id")
"""What of a client, besides its address and key, tells whose limits its calls come under. Where one
SDK has a text of such a name, another may have something else."""
_KEYS = ("api_key", "auth_token")
_KEY_PROVIDERS = ("_api_key_provider", "_azure_ad_token_provider")
"""Where a client has one of these its key changes by the hour, and says nothing."""
_KEY_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})


def account_of(client: Any, options: Any) -> str:
    """A name for the account that a request is charged to at the provider: a digest of the key, the
    organisation and the address. The key cannot be told from it.
    """
    is_fixed = all(getattr(client, name, None) is None for name in _KEY_PROVIDERS)
    names = (*_PARTS, *_KEYS) if is_fixed else _PARTS
    values = [(name, getattr(client, name, None)) for name in names]
    parts = [str(client.base_url), *(f"{n}={v}" for n, v in values if isinstance(v, str))]
    for headers in (getattr(client, "_custom_headers", None), options.headers):
        if isinstance(headers, Mapping):
            parts += sorted(f"{k.lower()}={v}" for k, v in headers.items() if _is_key(k))
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]


def _is_key(header: str) -> bool:
    return header.lower() in _KEY_HEADERS


class Listener:
    """Hears every HTTP response of one call, those that the SDK retries included.

    Args:
        guard: whose call it is.
        upstream: what that guard knows of providers' limits.
        provider: whose API is spoken.
        account: as `account_of` names it.
    """

    __slots__ = ("_account", "_guard", "_provider", "_upstream")

    def __init__(self, guard: Guard, upstream: Upstream, provider: Provider, account: str) -> None:
        self._guard = guard
        self._upstream = upstream
        self._provider = provider
        self._account = account

    def hear(self, lease: Lease, response: Any, error: Any = None) -> None:
        """A response came in; with the error that the caller gets of it, if so. Whatever is wrong
        with it, it reaches the caller as it came.
        """
        try:
            refused = response.status_code == 429
            # Money that ran out is no matter of waiting.
            last = error is not None and getattr(error, "code", None) != "insufficient_quota"
            correction = self._upstream.hear(
                self._account,
                lease,
                self._provider.told(response.headers),
                refused=refused,
                last=last,
            )
        except Exception:
            log.exception("the provider's limits could not be read from a response")
            return
        if correction is not None:
            plan = partial(self._upstream.correcting, correction)
            self._guard.after(plan, at_once=correction.insist)
