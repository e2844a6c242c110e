"""Proves that every link inside the built documentation leads to a page, and to a place on it.

python tools/links.py build/docs   exit 1 and name those that do not
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

_LINK = re.compile(r'(?:href|src)="([^"]+)"')
_ELSEWHERE = re.compile(r"(?:https?|mailto|data):")


@cache
def places(page: Path) -> frozenset[str]:
    """What a link to the page may say behind its #."""
    return frozenset(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a page's link has a target; those to other sites are not followed."""
    path, _, place = link.partition("#")
    target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return False
    return not place or target.suffix != ".html" or unquote(place) in places(target)


def main(folder: Path) -> int:
    """Check all pages below a folder."""
    links = [
        (page, link)
        for page in sorted(folder.rglob("*.html"))
        for link in _LINK.findall(page.read_text(encoding="utf-8"))
        if not _ELSEWHERE.match(link)
    ]
    dead = [(page, link) for page, link in links if not leads_somewhere(page, link)]
    for page, link in dead:
        print(f"{page.relative_to(folder)}: {link} leads nowhere", file=sys.stderr)
    print(f"{len(links)} links inside the pages, {len(dead)} dead")
    return bool(dead) or not links


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
