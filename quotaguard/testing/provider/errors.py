"""Error bodies, in the shape each provider gives them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from .routes import Flavour

_OPENAI_TYPES = {429: "requests", 500: "server_error", 503: "service_unavailable_error"}
_OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_AWS_TYPES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


def error_body(
    flavour: Flavour, status: int, message: str | None = None, *, kind: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The body of an error and the headers that belong to it.

    `message` of `None` is the status's own phrase; `kind` overrules OpenAI's `type`.
    """
    message = message or _phrase(status)
    if flavour == "bedrock":
        name = _AWS_TYPES.get(status, "InternalServerException")
        return {"message": message}, {"x-amzn-errortype": name}
    if flavour == "azure":
        return {"error": {"code": str(status), "message": message}}, {}
    if flavour == "openai":
        kind = kind or _OPENAI_TYPES.get(status, "invalid_request_error")
        code = _OPENAI_CODES.get(status)
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}, {}
    name = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": name, "message": message}}, {}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == 529 else "Error"
