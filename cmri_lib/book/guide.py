"""The guides as pages: README and CONTRIBUTING in the form of a book, the landing page, and pages of source code."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from cmri_lib.book import glossary
from cmri_lib.book.links import Links, anchor
from cmri_lib.config.study import Study
from cmri_lib.course import quiz_page, read_quiz
from cmri_lib.errors import DataError

#: Sections of the README that are pages of their own: page → section.
SECTIONS = {"guide/use": "Read, change, rerun", "guide/data": "Data and licences"}
#: Pages that notebook 13 writes: page → file and title.
RESULTS = {"results/index": ("results/FINDINGS.md", "Findings"), "results/tables": ("results/README.md", "All tables")}
LANDING = """# Synthetic cardiac MRI

{what}

{short}

## In ten minutes

1. **The scoreboard** below: one row for each system, one column for each measure. The first row of each panel is what
   real images score. Green cells reach it.
2. **{claims}**: what the review says, what was tested, and the verdict.
3. **{fidelity}**: how the distances of the scoreboard are made, and what each can see. Begin with its question, then
   its summary.
4. **{scores}**: the same numbers to sort and filter. **{reading}** Try whether you can tell.
5. **One system** that you know, for example {ddpm} or {flow}: idea, sources, samples, scores, training.
6. **{tables}**: every number with its interval, and {data}.

Every figure opens in full size. Long code and the solutions of exercises are folded. The search finds words in all pages, and
works without a network.

## The scoreboard

{scoreboard}

## What is published

{state}

```{{toctree}}
:hidden:
:caption: The study
notebooks/index
systems/index
claims/index
```

```{{toctree}}
:hidden:
:caption: Results
results/index
results/scoreboard
results/tables
```

```{{toctree}}
:hidden:
:caption: Try it
try/reading
try/sliders
```

```{{toctree}}
:hidden:
:caption: Guide
guide/use
guide/glossary
guide/contributing
guide/data
guide/cohorts
guide/families
guide/checklist
course/index
```
"""


def section(text: str, title: str, file: str = "README.md") -> str:
    """What stands below the heading `title` of second level. Raises DataError if there is no such heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise DataError("the section is missing", file=file, field=title,
                        remedy="keep its heading, or change cmri_lib/book/guide.py")
    return found[1].strip()


def paragraph(text: str, beginning: str) -> str:
    """The paragraph of the README that begins so. Raises DataError if there is none."""
    found = next((part for part in text.split("\n\n") if part.startswith(beginning)), None)
    if found is None:
        raise DataError("the paragraph is missing", file="README.md", field=beginning,
                        remedy="keep its first words, or change cmri_lib/book/guide.py")
    return found


def landing(study: Study, links: Links) -> str:
    """Markdown of the first page."""
    readme, place = _read(study, "README.md"), "index.html"
    board = f"figures/{study.dataset}/13/scoreboard.png"
    shown = links.figure(board, place, "Scoreboard of all systems") if (study.root / board).is_file() else "Not yet made."
    return LANDING.format(
        what=links.rewrite(paragraph(readme, "A 2026 review"), "", place),
        short=_in_short(study, links, place), state=links.rewrite(section(readme, "What is published"), "", place),
        claims=anchor("claims/index.html", "The claims", place), fidelity=links.to(links.notebook("06"), "Notebook 06", place),
        ddpm=anchor("systems/U6.html", "U6 DDPM", place), flow=anchor("systems/U10.html", "U10 flow matching", place),
        scores=anchor("results/scoreboard.html", "A table of systems", place),
        reading=anchor("try/reading.html", "Real or synthetic?", place),
        tables=anchor("results/tables.html", "All tables", place), scoreboard=shown,
        data=anchor("guide/data.html", "where the data come from", place))


def _in_short(study: Study, links: Links, place: str) -> str:
    file, title = "results/FINDINGS.md", "In short"
    if not (study.root / file).is_file():
        return ""
    found = links.rewrite(section(_read(study, file), title, file), "results", place)
    return f"## {title}\n\n{found}\n\n{anchor('results/index.html', 'The findings', place)} give the numbers and the figures."


def pages(study: Study, links: Links) -> dict[str, str]:
    """Path of a page, without its ending → Markdown."""
    readme, contributing = _read(study, "README.md"), _read(study, "CONTRIBUTING.md")
    made = {page: f"# {title}\n\n{links.rewrite(section(readme, title), '', f'{page}.html')}\n"
            for page, title in SECTIONS.items()}
    made["index"] = landing(study, links)
    made["notebooks/index"] = _notebooks(study, readme, links)
    made[glossary.PAGE] = glossary.page(study, links)
    made["guide/contributing"] = links.rewrite(contributing, "", "guide/contributing.html")
    for page, (file, title) in RESULTS.items():
        written = (study.root / file).is_file()
        text = _read(study, file).partition("\n")[2] if written else "\nNot yet written: notebook 13 makes it.\n"
        made[page] = links.rewrite(f"# {title}\n{text}", "results", f"{page}.html")
    return made | _course(study, links)


def _course(study: Study, links: Links) -> dict[str, str]:
    """The guide for teachers, and a page with the quiz of each notebook."""
    quiz, place = read_quiz(study.root / "course" / "quiz.yaml"), "course/index.html"
    titles = {source.stem[:2]: f"{source.stem[:2]} {source.stem[3:].replace('_', ' ')}"
              for source in sorted((study.root / "notebooks").glob("[0-9][0-9]_*.py"))}
    made = {f"course/{number}": quiz_page(titles[number], questions, int(number)) for number, questions in quiz.items()}
    listed = " · ".join(anchor(f"course/{number}.html", titles[number], place) for number in quiz)
    tree = "\n".join(quiz)
    text = links.rewrite(_read(study, "course/README.md"), "course", place)
    return made | {"course/index": f"{text}\n## Quizzes\n\n{listed}\n\n```{{toctree}}\n:hidden:\n{tree}\n```\n"}


def _notebooks(study: Study, readme: str, links: Links) -> str:
    title = "The notebooks"
    names = "\n".join(source.stem for source in sorted((study.root / "notebooks").glob("[0-9][0-9]_*.py")))
    table = links.rewrite(section(readme, title).split("\n\n")[0], "", "notebooks/index.html")
    return f"# Notebooks\n\n{table}\n\n```{{toctree}}\n:hidden:\n{names}\n```\n"


def source_pages(study: Study, links: Links) -> dict[str, str]:
    """Pages of the modules and texts that others refer to; no part of the navigation, and code not of the search."""
    made: dict[str, str] = {}
    while waiting := {file for file in links.sources if links.page(file).removesuffix(".html") not in made}:
        for file in sorted(waiting):
            text, page = _read(study, file), links.page(file)
            if file.endswith(".py"):
                text = f"---\norphan: true\nnosearch: true\n---\n\n# `{file}`\n\n~~~~python\n{text}~~~~\n"
            else:
                text = f"---\norphan: true\n---\n\n{links.rewrite(text, str(PurePosixPath(file).parent), page)}"
            made[page.removesuffix(".html")] = text
    return made


def _read(study: Study, name: str) -> str:
    return (study.root / name).read_text(encoding="utf-8")
