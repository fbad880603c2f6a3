"""Whether a finished book holds together: every link inside it leads somewhere, and nothing is loaded from a network.

    python -m cmri_lib.book --check
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Attributes whose file a browser loads by itself; those of links to follow are no part of this.
LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("image", "href"), ("source", "src"), ("iframe", "src"),
         ("video", "src"), ("audio", "src"), ("object", "data"), ("embed", "src"), ("use", "href")}
#: What loads from a script or a style sheet: an address of a network in one of these.
IN_CODE = re.compile(r"""(?:(?:url|fetch|import|importScripts)\(\s*|@import\s*|\.src\s*=\s*)["']?((?:https?:)?//[^"')\s]+)""")


class _Page(HTMLParser):
    """Links, ids, and what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.without_words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.ids.add(value)
            if value and name in ("href", "src", "data"):
                (self.loads if (tag, name) in LOADS else self.links).append(value)
            if value and name == "srcset":
                self.loads += [part.split()[0] for part in value.split(",") if part.strip()]
        if tag == "img" and "alt" not in dict(attributes):
            self.without_words.append(str(dict(attributes).get("src")))


def read(file: Path) -> _Page:
    page = _Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def faults(book: Path) -> list[str]:
    """What is wrong with the pages below a folder, one sentence each; [] of a whole book."""
    pages = {file: read(file) for file in sorted(book.rglob("*.html"))}
    found = [] if pages else [f"{book.name}: no pages"]
    for file, page in pages.items():
        name = file.relative_to(book).as_posix()
        found += [f"{name} loads {address} from a network" for address in page.loads if urlsplit(address).netloc]
        found += [f"{name} shows {source} without words for those who cannot see it" for source in page.without_words]
        found += [f"{name} {fault}" for address in (*page.links, *page.loads) if (fault := _broken(address, file, pages))]
    for file in sorted([*book.rglob("*.js"), *book.rglob("*.css")]):
        found += [f"{file.relative_to(book).as_posix()} loads {address} from a network"
                  for address in IN_CODE.findall(file.read_text(encoding="utf-8"))]
    return list(dict.fromkeys(found))


def _broken(address: str, file: Path, pages: dict[Path, _Page]) -> str:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return ""
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.is_file():
        return f"links to {address}, which does not exist"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        return f"links to {address}, a place that the page does not have"
    return ""
