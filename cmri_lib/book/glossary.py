"""The glossary: what the notebooks say of each term, in one place, in the order of the alphabet."""

from __future__ import annotations

import re
from dataclasses import dataclass

import jupytext

from cmri_lib.book.links import Links
from cmri_lib.config.study import Study
from cmri_lib.reporting import review

PAGE = "guide/glossary"
#: A point of a list that begins with a term: in bold, at the beginning of a sentence.
ENTRY = re.compile(r"^- ((?:An? |The )?\*\*(?P<term>[^*]+[^*.])\*\*.*?)(?=^- |^\s*$|\Z)", re.MULTILINE | re.DOTALL)
#: Of how many characters an explanation is at least.
LEAST = 60


@dataclass(frozen=True)
class Entry:
    """A term, its explanation as Markdown, and the number of the notebook that gives it."""

    term: str
    text: str
    notebook: str


def entries(study: Study) -> list[Entry]:
    """Every explanation of a term in the notebooks, one after the other."""
    found = []
    for source in sorted((study.root / "notebooks").glob("[0-9][0-9]_*.py")):
        prose = "\n\n".join(cell.source for cell in jupytext.read(source).cells if cell.cell_type == "markdown")
        for point in ENTRY.finditer(prose):
            term, text = point["term"], " ".join(point[1].split())
            begins_a_sentence = text[0] != "*" or term[0].isupper()
            if begins_a_sentence and len(text) - len(term) >= LEAST and term not in review.SYSTEMS:
                found.append(Entry(term, text, source.stem[:2]))
    return found


def page(study: Study, links: Links) -> str:
    """Markdown of the glossary: of terms that several notebooks explain the first explanation, for it needs the least."""
    place, terms = f"{PAGE}.html", {}
    for entry in entries(study):
        terms.setdefault(entry.term.casefold(), []).append(entry)
    lines = []
    for _, of_term in sorted(terms.items()):
        numbers = dict.fromkeys(entry.notebook for entry in of_term)
        where = ", ".join(links.to(links.notebook(number), number, place) for number in numbers)
        lines.append(f"- {links.rewrite(of_term[0].text, 'notebooks', place)} ({where})")
    listed = "\n".join(lines)
    return f"# Glossary\n\nThe terms of the study, as notebooks explain them; the numbers lead there.\n\n{listed}\n"
