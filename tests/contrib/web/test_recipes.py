"""The recipes of the how-to page, in the frameworks that they are for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("django")

from django.conf import settings
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path
from django.utils.module_loading import import_string

from quotaguard import Guard
from quotaguard.contrib.http import REFUSALS, Exchange
from quotaguard.testing import FakeClock
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "web.md"


class Users:
    """Stands for Django's authentication."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Everybody is who they say."""
        name = request.headers.get("x-user", "")
        request.user = SimpleNamespace(get_username=lambda: name)
        return self.get_response(request)


def recipe(page: Path, beginning: str, **names: Any) -> ModuleType:
    """A fence of a page, as the module that a reader would make of it."""
    (text,) = [block.text for block in blocks(page) if block.text.startswith(beginning)]
    module = ModuleType("recipe_of_the_page")
    vars(module).update(names)
    exec(compile(text, str(page), "exec"), vars(module))
    return module


def test_the_recipe_for_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are charged to the user, refusals are problems, other errors are Django's."""
    guard = Guard(limits=["100 tokens/day"], clock=FakeClock())
    names = {"guard": guard, "Exchange": Exchange, "REFUSALS": REFUSALS, "Users": Users}
    module = recipe(PAGE, "from django.http import JsonResponse", **names)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def view(request: Any, tokens: int) -> HttpResponse:
        with guard.hold(input_tokens=tokens, output_tokens=0):
            return HttpResponse("done")

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["testserver"], DEBUG_PROPAGATE_EXCEPTIONS=True)
    monkeypatch.setattr(
        settings,
        "MIDDLEWARE",
        [f"{module.__name__}.{name}" for name in ("Users", "QuotaMiddleware")],
    )
    monkeypatch.setattr(settings, "ROOT_URLCONF", (path("<int:tokens>", view),), raising=False)
    handler = import_string("django.core.handlers.wsgi.WSGIHandler")()

    def ask(tokens: int, user: str = "ann") -> Any:
        return handler.get_response(RequestFactory().get(f"/{tokens}", headers={"x-user": user}))

    passed, refused, never = ask(60), ask(60), ask(101)
    assert (passed.status_code, passed["RateLimit"]) == (200, '"100 tokens/day";r=40;t=86400')
    assert (refused.status_code, refused["Retry-After"]) == (429, "86400")
    assert refused["Content-Type"] == "application/problem+json"
    assert refused["RateLimit"] == passed["RateLimit"]
    assert never.status_code == 413
    assert ask(60, "bob").status_code == 200
    with pytest.raises(ValueError, match="no user"):
        ask(60, "")
