"""How guards, receipts and reports show themselves: HTML in a notebook, text in a terminal.

IPython asks for ``_repr_mimebundle_``, other notebooks for ``_repr_html_``; none of them is
imported here. What a caller chose, such as a user's name, is escaped.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"Receipt": "receipts", "Report": "reports", "Guard": "guards"}
"""Class -> the module here that has ``as_html`` and ``as_text`` for it; loaded when it is shown."""


class Displayed:
    """What notebooks show richly."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(_home(self).as_html(self))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(_home(self).as_text(self)), "text/html": self._repr_html_()}


def _home(shown: object) -> Any:
    name = next(_HOMES[cls.__name__] for cls in type(shown).__mro__ if cls.__name__ in _HOMES)
    return import_module(f"{__name__}.{name}")
