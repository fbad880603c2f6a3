"""The making of the book: pages are written in Markdown, made into HTML, and the files that they show are put beside them.

A book is made in a folder of its own and takes the place of the earlier one only when it is whole. What the
earlier one holds of notebooks that were executed elsewhere goes into the new one, as long as their figures are
the published ones (`copies`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat

from cmri_lib.book import cards, claims, facts, guide, interactive, notebooks, site, systems
from cmri_lib.book.copies import Copy
from cmri_lib.book.links import Links
from cmri_lib.cohort.whole_folder import is_free, whole_folder
from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError
from cmri_lib.reporting import review

NAME = "Synthetic cardiac MRI"
#: What every book has had since the first one; a folder with all of them is a book, and another one may take its place.
IN_EVERY_BOOK = ("index.html", "_static/book.css", "_static/styles/furo.css")


@dataclass(frozen=True)
class Made:
    """What a book has become: its number of pages, and the notebooks with and without a copy of their run."""

    pages: int
    executed: list[str]
    missing: list[str]

    @property
    def text(self) -> str:
        missing = f"; without outputs, since no run of theirs is kept: {', '.join(self.missing)}" if self.missing else ""
        return f"{self.pages} pages; notebooks as they were run: {', '.join(self.executed) or 'none'}{missing}"


def make(study: Study, book: Path) -> Made:
    """Write the book into the folder `book`: a new or an empty one, or that of an earlier book.

    Raises:
        ParameterError: if something else lies there.
        StudyError: if a page cannot be made or the disk refuses; the earlier book is then still there.
    """
    book = book.resolve()
    _refuse_taken(book)
    (study.root / "work").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=study.root / "work", prefix="book-") as work:  # two books may be made at once
        return _make(study, book, Path(work))


def _make(study: Study, book: Path, work: Path) -> Made:
    pages, out, files = work / "pages", work / "html", work / "files"
    links = Links(study.root)
    sources = sorted((study.root / "notebooks").glob("[0-9][0-9]_*.py"))
    kept = {source: notebooks.find_copy(study, source, book) for source in sources}
    for source, copy in kept.items():
        if copy is not None:
            _keep(copy, source, files)
    written = {f"notebooks/{source.stem}": notebooks.page(study, source, copy, links, files) for source, copy in kept.items()}
    written |= _reviewed(study, links, files) | guide.pages(study, links)
    written |= guide.source_pages(study, links)  # after all others: they say which modules
    for page, text in written.items():
        file = pages / f"{page}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    site.build(pages, out, NAME)
    for file in sorted(links.files):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(study.root / file, out / file)
    shutil.copytree(files, out, dirs_exist_ok=True)
    _put(out, book)
    return Made(len(written), [s.stem[:2] for s in sources if kept[s]], [s.stem[:2] for s in sources if not kept[s]])


def _refuse_taken(book: Path) -> None:
    if not is_free(book) and not all((book / name).is_file() for name in IN_EVERY_BOOK):
        raise ParameterError("is there already, and neither a book nor an empty folder", file=book, field="out",
                             remedy="name a new folder, or remove this one yourself")


def _put(made: Path, book: Path) -> None:
    """Copy what was made beside the earlier book; only when all of it is there does it take the place."""
    with whole_folder(book, field="out", problem="the book cannot be put there", remedy="check free space and permissions",
                      replace=True) as new:
        shutil.copytree(made, new, dirs_exist_ok=True)


def _keep(copy: Copy, source: Path, files: Path) -> None:
    for place, content in copy.images.items():
        (files / place).parent.mkdir(parents=True, exist_ok=True)
        (files / place).write_bytes(content)
    place = files / notebooks.download(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(copy.notebook, place)


def _reviewed(study: Study, links: Links, files: Path) -> dict[str, str]:
    """The pages of systems and claims; model cards are put among the files."""
    results = facts.results_of(study.root)
    made = interactive.pages(study, results, links) | cards.pages(study, results, links, files) | {
        "systems/index": systems.index(study, results), "claims/index": claims.index(study, results, links)}
    (files / "systems").mkdir(parents=True, exist_ok=True)
    for identity in facts.identities():
        card = facts.card(study, identity, results)
        text = json.dumps(card, indent=1, ensure_ascii=False)
        (files / "systems" / f"{identity}.json").write_text(text + "\n", encoding="utf-8")
        made[f"systems/{identity}"] = systems.page(study, card, results, links)
    return made | {f"claims/{claim}": claims.page(claim, results, links) for claim in review.CLAIMS}
