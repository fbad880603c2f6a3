"""From the files of the repository to the pages of the book: where each is, and links between them.

A page is written in Markdown, its links to other pages in HTML: they lead to files that exist only once the book is made, and a
check of the finished book (`check`) follows every one of them.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from cmri_lib.errors import DataError
from cmri_lib.reporting import review

#: Pages that are made of one file.
PAGES = {"README.md": "index.html", "CONTRIBUTING.md": "guide/contributing.html", "course/README.md": "course/index.html",
         "results/FINDINGS.md": "results/index.html", "results/README.md": "results/tables.html"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
#: Fenced blocks and code within a line, where nothing is a link.
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
#: What stands in the place of a figure that a run has not made.
NOT_MADE = "(not made in this run)"
MENTION = re.compile(r"\b([Nn]otebook) (\d\d)\b")
#: A claim of the review: at the head of an item of a list, or named as one. Elsewhere T1 is a time.
CLAIM = re.compile(r"(^\s*[-*] |\b[Cc]laim )([A-Z]\d)(?=[:,.)]| and )", re.MULTILINE)


@dataclass
class Links:
    """What pages refer to, gathered while they are written.

    Attributes:
        root: of the project.
        files: copied into the book under their own paths.
        sources: modules and texts that get a page.
    """

    root: Path
    files: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)

    def page(self, file: str) -> str:
        """The place in the book of a file of the repository, which is made part of the book if it is none yet.

        Raises:
            DataError: if there is no such file.
        """
        path = PurePosixPath(file)
        if not (self.root / file).is_file():
            raise DataError("a link leads to a file that does not exist", file=file, remedy="mend the link")
        if file in PAGES:
            return PAGES[file]
        if path.parts[0] == "notebooks":
            return path.with_suffix(".html").as_posix()
        if path.suffix == ".py":
            self.sources.add(file)
            return f"source/{path.with_suffix('.html')}"
        if path.parts[0] == "results" and path.suffix == ".md":  # templates are no texts to read
            self.sources.add(file)
            return path.with_suffix(".html").as_posix()
        self.files.add(file)
        return file

    def to(self, file: str, text: str, page: str) -> str:
        """A link in HTML from a page of the book to a file of the repository."""
        return anchor(self.page(file), text, page)

    def notebook(self, number: str) -> str:
        """The file of a notebook, by its number."""
        return next(self.root.glob(f"notebooks/{number}_*.py")).relative_to(self.root).as_posix()

    def figure(self, file: str, page: str, alternative: str) -> str:
        """A published figure with a link to its full size and to the numbers behind it."""
        self.files.add(file)
        numbers = str(PurePosixPath(file).with_suffix(".csv"))
        caption = ""
        if (self.root / numbers).is_file():
            self.files.add(numbers)
            caption = anchor(numbers, "the numbers behind this figure (CSV)", page)
        return picture(file, (self.root / file), page, alternative, caption)

    def rewrite(self, text: str, folder: str, page: str) -> str:
        """Markdown of a file in `folder` of the repository for a page of the book: links and images, and notebooks that are
        mentioned by their numbers."""
        def replace(found: re.Match[str]) -> str:
            shown, words, target = found.groups()
            if re.match(r"[a-z]+:|#", target):
                return found[0]
            path = os.path.normpath(PurePosixPath(folder, target.split("#")[0])).replace(os.sep, "/")
            if path.startswith("figures/") and not (self.root / path).is_file():
                return f"{words} {NOT_MADE}"  # of a notebook that this cohort gives nothing to do, or that has yet to run
            if shown:
                return f"\n\n{self.figure(path, page, words)}\n\n"
            return f'<a href="{relative(self.page(path), page)}">{words}</a>'

        def claim(found: re.Match[str]) -> str:
            return found[1] + (anchor(f"claims/{found[2]}.html", found[2], page) if found[2] in review.CLAIMS else found[2])

        def mention(found: re.Match[str]) -> str:
            known = any(self.root.glob(f"notebooks/{found[2]}_*.py"))
            return self.to(self.notebook(found[2]), found[0], page) if known else found[0]

        return outside_code(text, lambda part: LINK.sub(replace, _outside_links(CLAIM.sub(claim, part), mention)))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` made to all of it but code; a link whose words are code is one piece with them."""
    kept: list[str] = []

    def put_away(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\x00{len(kept) - 1}\x00"

    return re.sub(r"\x00(\d+)\x00", lambda found: kept[int(found[1])], change(CODE.sub(put_away, text)))


def _outside_links(text: str, mention: Callable[[re.Match[str]], str]) -> str:
    parts = re.split(r"(!?\[[^\]]*\]\([^)\s]+\))", text)
    return "".join(part if place % 2 else "\n".join(line if line.startswith("#") else MENTION.sub(mention, line)
                                                    for line in part.split("\n")) for place, part in enumerate(parts))


def relative(target: str, page: str) -> str:
    """The address of one place of the book as seen from another."""
    return os.path.relpath(target, os.path.dirname(page) or ".").replace(os.sep, "/")


def anchor(target: str, text: str, page: str) -> str:
    """A link in HTML; `text` is plain."""
    return f'<a href="{relative(target, page)}">{html.escape(text)}</a>'


def picture(place: str, file: Path, page: str, alternative: str, caption: str = "") -> str:
    """An image of the book, that opens in full size, in one line of HTML. Its size is named, so that nothing jumps."""
    with Image.open(file) as image:
        width, height = image.size
    source, words = relative(place, page), html.escape(" ".join(alternative.split()), quote=True)
    return (f'<figure class="picture"><a href="{source}" title="full size"><img src="{source}" '
            f'width="{width}" height="{height}" loading="lazy" alt="{words}"></a>'
            f'{f"<figcaption>{caption}</figcaption>" if caption else ""}</figure>')


def row_of(file: Path, place: str, page: str, row: int, rows: int, alternative: str) -> str:
    """One row of a figure that is a grid of slices, cut out by the browser alone: the file stays what it is.

    Returns:
        "" if the rows cannot be told apart in the picture.
    """
    with Image.open(file) as image:
        bands, size = bands_of(image, rows), image.size
    if not bands:
        return ""
    top, bottom = bands[row]
    source = relative(place, page)
    shown = window(source, size, f"0 {top} {size[0]} {bottom - top}", alternative)
    return f'<figure class="picture row"><a href="{source}" title="the whole figure">{shown}</a></figure>'


def window(source: str, size: tuple[int, int], view: str, words: str, more: str = "") -> str:
    """A part of an image, by its viewBox; `words` for those who cannot see it, `more` attributes."""
    return (f'<svg viewBox="{view}"{more} role="img" aria-label="{html.escape(words, quote=True)}">'
            f'<image href="{source}" width="{size[0]}" height="{size[1]}"/></svg>')


def bands_of(image: Image.Image, rows: int) -> list[tuple[int, int]]:
    """First and last line of each of `rows` rows of slices, from the last line up; [] if there are fewer. Names stand
    at the left and may reach over the gaps, so only the right three quarters are looked at."""
    grey = np.asarray(image.convert("L"))[:, image.width // 4:]
    high = [(a, b) for a, b in runs_of((grey < 250).any(1)) if b - a > 30]  # a title is lower than a slice
    return high if len(high) == rows else []


def runs_of(inked: np.ndarray) -> list[tuple[int, int]]:
    """First and behind-the-last place of each run of True."""
    steps = np.diff(np.concatenate([[False], inked, [False]]).astype(int))
    return [(int(a), int(b)) for a, b in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1))]
