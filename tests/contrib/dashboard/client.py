"""A plain client of the dashboard: it keeps cookies, follows nothing, and sends a page's forms."""

from __future__ import annotations

import html
import http.client
import re
from typing import NamedTuple
from urllib.parse import urlencode, urljoin


class Page(NamedTuple):
    """An answer of the dashboard."""

    status: int
    fields: dict[str, str]
    """By lower-case name."""
    html: str

    @property
    def text(self) -> str:
        """What a reader sees, spaces made one."""
        return " ".join(
            html.unescape(re.sub(r"<[^>]*>", " ", re.sub("</?bdi>", "", self.html))).split()
        )

    @property
    def links(self) -> list[str]:
        """Where its links lead."""
        return [html.unescape(found) for found in re.findall(r'href="([^"]*)"', self.html)]

    @property
    def form(self) -> tuple[str, dict[str, str]]:
        """Where its first form of changes goes, and what is hidden in it."""
        begin = self.html.index('<form class="adjust"')
        form = self.html[begin : self.html.index("</form>", begin)]
        action = re.search(r'action="([^"]*)"', form)
        assert action is not None
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', form))
        return html.unescape(action[1]), hidden


class Client:
    """One browser, so to speak."""

    def __init__(self, port: int, prefix: str = "", app: str = "") -> None:
        self.port = port
        self.app = app
        self.at = f"{prefix}/"
        self.cookies: dict[str, str] = {}
        self.origin = f"http://127.0.0.1:{port}"

    def ask(self, method: str, url: str, body: str | None = None, **fields: str | None) -> Page:
        """One request; ``url`` is relative to the page where we are."""
        target = urljoin(self.at, url.removeprefix(self.origin)).partition("#")[0]
        headers = {name.replace("_", "-"): value for name, value in fields.items() if value}
        headers["x-app"] = self.app
        if self.cookies:
            headers["cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, body, headers)
            with connection.getresponse() as answer:
                said = answer.read().decode()
                for name, value in answer.getheaders():
                    if name.lower() == "set-cookie":
                        key, _, rest = value.partition("=")
                        self.cookies[key] = rest.partition(";")[0]
                page = Page(answer.status, {k.lower(): v for k, v in answer.getheaders()}, said)
        finally:
            connection.close()
        if method == "GET" and page.status < 300:
            self.at = target
        return page

    def get(self, url: str = "./", **query: str) -> Page:
        """A page, redirects followed."""
        said = f"{url}?{urlencode(query, errors='surrogatepass')}" if query else url
        page = self.ask("GET", said)
        return self.get(page.fields["location"]) if page.status in (303, 307) else page

    def post(self, url: str, form: dict[str, str], **fields: str | None) -> Page:
        """Send a form, as a page of the same origin would, unless fields say otherwise."""
        fields = {
            "origin": self.origin,
            "content_type": "application/x-www-form-urlencoded",
        } | fields
        return self.ask("POST", url, urlencode(form), **fields)

    def grant(self, page: Page, amount: str, metric: str = "tokens", do: str = "grant") -> Page:
        """Fill a user's page in and follow where that leads."""
        action, hidden = page.form
        done = self.post(action, {**hidden, "do": do, "amount": amount, "metric": metric})
        return self.get(done.fields["location"]) if done.status == 303 else done
