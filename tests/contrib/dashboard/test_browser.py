"""The dashboard in a real browser: what runs and what does not, by keyboard, and for everybody."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from quotaguard import Guard
from quotaguard.contrib.dashboard import dashboard
from tests.contrib.web.server import serving

from .conftest import HOSTILE, call

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium here: apt-get install chromium"
)
PAGES = {"overview": "", "users": "users", "user": "find?user=alice", "nobody": "find?user=nobody"}
SHOTS = Path(__file__).parents[3] / "build" / "dashboard"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with sync_playwright() as driver:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # which root can't have
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


class Looks:
    """A page of the browser, and what it complained of."""

    def __init__(self, page: Any, base: str) -> None:
        self.page = page
        self.base = base
        self.complaints: list[str] = []
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: said.type == "error" and self.complaints.append(said.text),
        )

    def at(self, path: str) -> Any:
        """The page there."""
        self.page.goto(f"{self.base}{path}")
        return self.page


@pytest.fixture
def app(guard: Guard) -> Any:
    """The dashboard in an app, beside a page of somebody else's that wants a reset."""

    async def evil(_: Any) -> HTMLResponse:
        return HTMLResponse(
            "<form method=post action='http://localhost:{port}/quotas/adjust?user=alice'>"
            "<button name=do value=reset>Win</button></form>"
        )

    def admin(_: HTTPConnection) -> str:
        return "olga"

    return Starlette(
        routes=[Mount("/quotas", dashboard(guard, authorize=admin)), Route("/evil", evil)]
    )


@pytest.fixture
def looks(browser: Any, app: Any) -> Iterator[Looks]:
    """An admin's browser."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    with serving(app) as port:
        yield Looks(context.new_page(), f"http://127.0.0.1:{port}/quotas/")
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(looks: Looks, guard: Guard, scheme: str) -> None:
    """Axe finds nothing: contrast, labels, landmarks, headings, tables. What is dark differs in
    its colours alone.
    """
    rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
    for user in HOSTILE[:2]:
        call(guard, user, 950, tier="free")
    guard.grant(-1200, user="alice", tier="pro", by="olga")
    looks.page.emulate_media(color_scheme=scheme)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for name, path in PAGES.items():
        page = looks.at(path)
        for details in page.query_selector_all("summary"):
            details.click()
        found = Axe().run(page, options=rules).response
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
        assert len(found["passes"]) > (0 if rules else 15)
        page.screenshot(path=SHOTS / f"{name}-{scheme}.png")
    page.get_by_label("Amount").fill("lots")
    page.get_by_role("button", name="Grant").click()
    assert page.get_by_role("alert").is_visible()
    found = Axe().run(page, options=rules).response
    assert found["violations"] == []


def test_it_fits_a_phone(looks: Looks) -> None:
    """Wide tables scroll by themselves; the page does not."""
    looks.page.set_viewport_size({"width": 360, "height": 740})
    for path in ("", "users", "find?user=alice"):
        page = looks.at(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert looks.complaints == []


def test_by_keyboard_alone(looks: Looks, guard: Guard) -> None:
    """From the top of the page to the grant that is done, and it is seen where one is."""
    page = looks.at("find?user=alice")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        if page.evaluate("document.activeElement.id") == "amount":
            break
    page.keyboard.type("100")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "metric"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/user?*said=*")
    assert "Granted: 500 tokens/day for large got 100" in page.get_by_role("status").inner_text()
    assert guard.peek(user="alice", tier="pro", everything=True)[0].left == 200
    assert looks.complaints == []


def test_hostile_names_are_text(looks: Looks, guard: Guard) -> None:
    """No dialog, no script, nothing that the browser had to stop: the names stand there."""
    for user in HOSTILE:
        call(guard, user, 950, tier="free")
    page = looks.at("users")
    assert page.get_by_text("<script>alert(1)</script>").count() == 1
    assert page.locator("img[src=x]").count() == 0
    for link in page.locator("tbody th a").evaluate_all("all => all.map(a => a.href)"):
        page.goto(link)
        assert page.locator("h1").count() == 1
        assert page.locator("script").count() == 1
    assert page.evaluate("document.querySelectorAll('script:not([src])').length") == 0
    assert looks.complaints == []


def test_a_name_with_line_ends_gets_its_own_grant(looks: Looks, guard: Guard) -> None:
    """Browsers write the ends of lines in fields anew; the form's URL keeps them."""
    name = "two\r\nlines\tand \u202e more"
    call(guard, name, 950, tier="free")
    page = looks.at("users")
    page.get_by_role("link", name="two").click()
    page.get_by_label("Amount").fill("500")
    page.get_by_role("button", name="Grant").click()
    assert "has 550 left" in page.get_by_role("status").inner_text()
    assert guard.peek(user=name, tier="free")[0].left == 550


def test_levels_stay_up_to_date(looks: Looks, guard: Guard) -> None:
    """Without a reload, and not while somebody wants to read in peace."""
    page = looks.page
    page.clock.install()
    looks.at("find?user=alice")
    left = page.locator("[data-level] [data-part=left]").first
    assert left.inner_text() == "100"
    guard.grant(300, user="alice", tier="pro")
    with page.expect_response("**/live?*"):
        page.clock.run_for(5_000)
    expect(left).to_have_text("400")
    width = page.locator("[data-level] [data-part=bar]").first.get_attribute("width")
    assert width == "80"
    page.get_by_role("button", name="Pause updates").click()
    guard.grant(100, user="alice", tier="pro")
    page.clock.run_for(20_000)
    assert left.inner_text() == "400"
    with page.expect_response("**/live?*"):
        page.get_by_role("button", name="Resume updates").click()
    expect(left).to_have_text("500")
    assert looks.complaints == []


def test_another_site_can_neither_send_a_form_nor_frame_it(looks: Looks, guard: Guard) -> None:
    """What a browser says of where a form comes from is enough to turn it down."""
    page = looks.at("find?user=alice")
    before = guard.peek(user="alice", tier="pro", everything=True)
    page.goto(looks.base.replace("127.0.0.1", "localhost").replace("quotas/", "evil"))
    page.evaluate(
        "url => { document.forms[0].action = url }", f"{looks.base}adjust?user=alice&tier=pro"
    )
    page.get_by_role("button", name="Win").click()
    page.wait_for_load_state()
    assert "did not come from a page of this dashboard" in page.inner_text("body")
    assert guard.peek(user="alice", tier="pro", everything=True) == before
    looks.at("../evil")
    page.evaluate(
        "url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))",
        looks.base,
    )
    page.wait_for_function("frames.length == 1")
    page.wait_for_load_state("networkidle")
    assert any("frame-ancestors" in text for text in looks.complaints)
