"""What a request says: in the query of its URL, or in a form."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002  # stands beside its like

from .books import SPANS, Account, Span

_LONGEST_FORM = 16_384  # bytes


class Query:
    """A query string, or a form's body.

    Raises:
        HTTPException: 400, it is none.
    """

    def __init__(self, text: str) -> None:
        try:
            self._said = parse_qs(
                text, keep_blank_values=True, errors="surrogatepass", max_num_fields=20
            )
        except ValueError as error:  # UnicodeDecodeError is one
            raise HTTPException(400, "The query can't be read.") from error

    @classmethod
    def of(cls, request: Request) -> Query:
        """What a request's URL says."""
        return cls(request.scope["query_string"].decode("latin-1"))

    def text(self, key: str) -> str | None:
        """What it says, None if that is nothing."""
        return self._said.get(key, [""])[-1] or None

    def choice(self, key: str, choices: Iterable[str]) -> str:
        """What it says if that is one of the choices, else the first of them."""
        said, known = self.text(key), tuple(choices)
        return said if said is not None and said in known else known[0]

    @property
    def span(self) -> Span:
        """The stretch of time that is asked for."""
        return SPANS[self.choice("span", ("7d", *SPANS))]

    @property
    def number(self) -> int:
        """The page that is asked for, from 1."""
        said = self.text("page") or ""
        return max(1, int(said)) if said.isascii() and said.isdigit() and len(said) < 9 else 1

    @property
    def account(self) -> Account:
        """Whose page it is.

        Raises:
            HTTPException: 400, it does not say.
        """
        account = Account(self.text("user"), self.text("org"))
        if account == (None, None):
            raise HTTPException(400, "Whose page? Say a user, an organisation, or both.")
        return account

    def sealed(self, said: str) -> tuple[str, ...]:
        """What we tell of an account, as it is sealed."""
        return ("said", *(f"{key}={value}" for key, value in self.who.items()), said)

    @property
    def who(self) -> dict[str, str]:
        """The names that it says."""
        said = {key: self.text(key) for key in ("user", "org", "tier")}
        return {key: value for key, value in said.items() if value is not None}


async def body_of(request: Request) -> str:
    """A form's body.

    Raises:
        HTTPException: 413 or 415, it is too long or no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "A form is sent as application/x-www-form-urlencoded.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise HTTPException(413, f"A form has at most {_LONGEST_FORM} bytes.")
    return body.decode("latin-1")
