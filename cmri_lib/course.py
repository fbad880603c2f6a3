"""What a teacher hands out: the notebooks without their solutions, and a quiz for each.

    python -m cmri_lib.course --out exercises

Solutions are cells with the tag ``solution`` in the notebooks themselves, and are executed with them. Each follows the
text of its exercise, see `exercises`. The questions of the quizzes are in ``course/quiz.yaml``; where a notebook says
nothing of itself, see ``course/README.md``.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import nbformat
import yaml
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cmri_lib.cohort.places import project_root
from cmri_lib.errors import DataError, command

#: What stands in the place of a solution.
BLANK = "# Your solution:\n"
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Question:
    """A question, its answers, of which the first is right, and why it is."""

    question: Text
    answers: Annotated[tuple[Text, ...], Field(min_length=3)]
    why: Text


def read_quiz(file: Path) -> dict[str, list[Question]]:
    """Number of a notebook → its questions.

    Raises:
        DataError: if the file is no such table.
    """
    try:
        return TypeAdapter(dict[str, list[Question]]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as problem:
        raise DataError(f"no quiz: {problem}", file=file, field="question",
                        remedy="give each notebook a list of question, answers (at least three), why") from problem


@dataclass(frozen=True)
class Exercise:
    """A task, which ends in a question, and its solution, which ends in a comment that answers it."""

    title: Text
    task: Text
    solution: Text


def exercises(notebook: nbformat.NotebookNode) -> list[Exercise]:
    """The exercises of a notebook, in their order: a Markdown cell headed ``### 1. Title``, ``### 2. Title``, …, and the code
    cell with the tag ``solution`` that follows it.

    Raises:
        DataError: if a solution follows no such cell, a number is out of order, a task does not end in a question, or a
            solution does not end in a comment.
    """
    found: list[Exercise] = []
    for before, cell in zip([None, *notebook.cells], notebook.cells):
        if "solution" not in cell.metadata.get("tags", []):
            continue
        number = len(found) + 1
        text = before.source if before is not None and before.cell_type == "markdown" else ""
        heading = re.search(rf"^### {number}\. ([^\n]+)\n+(.+)\Z", text, re.MULTILINE | re.DOTALL)
        title, task = (part.strip() for part in heading.groups()) if heading else ("", "")
        answered = cell.source.rstrip().rpartition("\n")[2].startswith("# ")
        if not heading or not task.endswith("?") or not answered:
            raise DataError(f"exercise {number} has no heading, no question at its end, or no answer in words",
                            field="solution",
                            remedy=f'write "### {number}. Title", a task that ends in "?", a solution that ends in a comment')
        found.append(Exercise(title, task, cell.source))
    return found


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy whose cells with the tag ``solution`` are empty, without outputs.

    Raises:
        DataError: if there is none.
    """
    copy, found = nbformat.from_dict(notebook), 0
    for cell in copy.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.source, found = BLANK, found + 1
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if not found:
        raise DataError("the notebook has no solution", field="tags", remedy='tag the cell of a solution "solution"')
    return copy


def quiz_page(title: str, questions: Sequence[Question], seed: int = 0) -> str:
    """Markdown: each question with its answers in an order drawn from `seed`, and the right one behind a fold."""
    lines, shuffle = [f"# Quiz: {title}", ""], random.Random(seed)
    for number, one in enumerate(questions, 1):
        order = shuffle.sample(range(len(one.answers)), len(one.answers))
        lines += [f"**{number}. {one.question}**", ""]
        lines += [f"- {letter}) {one.answers[place]}" for letter, place in zip("abcdefgh", order)]
        right = "abcdefgh"[order.index(0)]
        lines += ["", f"<details><summary>Answer</summary>\n\n{right}) {one.why}\n\n</details>", ""]
    return "\n".join(lines)


def write(out: Path, notebooks: Sequence[Path], quiz: dict[str, list[Question]]) -> list[Path]:
    """The exercise version of every notebook, and its quiz, written to `out`; the files.

    Raises:
        DataError: if an exercise of a notebook is malformed, or it has none.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for file in notebooks:
        number, notebook = file.stem[:2], nbformat.read(file, 4)
        try:
            exercises(notebook)
            nbformat.write(without_solutions(notebook), out / file.name)
        except DataError as cause:
            raise DataError(cause.problem, file=file, field=cause.field, remedy=cause.remedy) from cause
        written.append(out / file.name)
        if number in quiz:
            page = out / f"{number}_quiz.md"
            page.write_text(quiz_page(file.stem[3:].replace("_", " "), quiz[number], int(number)), encoding="utf-8")
            written.append(page)
    return written


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if everything was written."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.course", description="Notebooks without solutions, and quizzes.")
    parser.add_argument("--out", type=Path, default=Path("exercises"), help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    root = project_root()
    notebooks = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    written = write(options.out, notebooks, read_quiz(root / "course" / "quiz.yaml"))
    print(f"{len(written)} files in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
