"""Writes the tables of endpoints in docs/explanation/metered.md from the providers' own.

python tools/metered.py           write them
python tools/metered.py --check   exit 1 if the page says something else
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from quotaguard.providers import anthropic, openai

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "metered.md"
BEGIN = "<!-- made by tools/metered.py: begin -->\n"
END = "<!-- made by tools/metered.py: end -->\n"


def table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    lines = [f"| {left} | {right} |" for left, right in (head, ("---", "---"), *rows)]
    return "\n".join(lines) + "\n"


def by_reason(unmetered: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Each reason once, with all the paths it is true of."""
    reasons: dict[str, list[str]] = {}
    for path, reason in unmetered.items():
        reasons.setdefault(reason, []).append(f"`{path}`")
    return ((", ".join(paths), reason) for reason, paths in reasons.items())


def tables() -> str:
    """The generated part of the page."""
    parts: list[str] = []
    for name, provider, sockets in (
        ("OpenAI and Azure OpenAI", openai, openai.OpenAIProvider.sockets),
        ("Anthropic, Bedrock and Vertex", anthropic, anthropic.AnthropicProvider.sockets),
    ):
        metered = ((f"`POST {path}`", kind) for path, kind in provider.METERED.items())
        parts += [
            f"### {name}: metered\n",
            table(("path", "counted as"), metered),
            f"### {name}: passed on, not metered\n",
            table(("path (`POST`)", "because"), by_reason(provider.UNMETERED)),
        ]
        if sockets:
            opened = ", ".join(f"`{resource}`" for resource in sockets)
            parts.append(f"Nor what goes over the web sockets that `connect()` opens: {opened}.\n")
        free = ", ".join(f"`{path}`" for path in provider.FREE)
        parts.append(f"### {name}: generate nothing\n\n`POST` to {free}; `**` is all below.\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{tables()}\n{END}{after}"
    if arguments == ["--check"]:
        if made != page:
            print(f"{PAGE.name} is not what the code says: run tools/metered.py", file=sys.stderr)
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
