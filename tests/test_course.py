"""What a teacher hands out: no solution in it, and every quiz has one right answer."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from cmri_lib.course import BLANK, Question, exercises, main, quiz_page, read_quiz, without_solutions, write
from cmri_lib.errors import DataError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
QUIZ = read_quiz(ROOT / "course" / "quiz.yaml")


def test_every_notebook_has_a_quiz_of_three_to_five_questions_with_different_answers() -> None:
    assert set(QUIZ) == {file.stem[:2] for file in NOTEBOOKS}
    for number, questions in QUIZ.items():
        assert 3 <= len(questions) <= 5, number
        assert len({one.question for one in questions}) == len(questions)
        for one in questions:
            assert len(set(one.answers)) == len(one.answers) >= 3 and one.question.endswith("?"), one.question


def test_the_right_answer_is_not_always_in_one_place() -> None:
    places = [page.split("<summary>Answer</summary>\n\n")[k][0] for number, questions in QUIZ.items()
              for page in [quiz_page("x", questions, int(number))] for k in range(1, len(questions) + 1)]
    assert {"a", "b", "c"} <= set(places) and max(places.count(letter) for letter in "abc") < 0.6 * len(places)
    one = Question("Why?", ("right", "wrong", "worse"), "So.")
    for seed in range(6):
        page = quiz_page("x", [one], seed)
        letter = page.split("<summary>Answer</summary>\n\n")[1][0]
        assert f"- {letter}) right" in page and page == quiz_page("x", [one], seed)


def test_exercise_versions_hold_no_solution_and_everything_else(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    for file in NOTEBOOKS:
        full, blank = (nbformat.read(f, 4) for f in (file, tmp_path / file.name))
        solved = ["solution" in cell.metadata.get("tags", []) for cell in full.cells]
        assert any(solved) and len(blank.cells) == len(full.cells)
        for cell, other, solution in zip(full.cells, blank.cells, solved):
            assert other.source == (BLANK if solution else cell.source)
        assert ((tmp_path / f"{file.stem[:2]}_quiz.md").read_text(encoding="utf-8").count("<details>")
                == len(QUIZ[file.stem[:2]]))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_every_notebook_has_two_or_three_exercises_that_ask_and_answer(file: Path) -> None:
    notebook = nbformat.read(file, 4)
    found = exercises(notebook)
    assert 2 <= len(found) <= 3 and len({one.title for one in found}) == len(found)
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert sum(text.startswith("## Exercises\n\n### 1. ") for text in prose) == 1
    numbered = [text for text in prose if re.search(r"^### \d+\. ", text, re.MULTILINE)]
    assert len(numbered) == len(found), "an exercise has no solution"
    for one in found:
        writes = re.search(r"\b(publish\w*|write\w*|to_csv|savefig|train\w*)\(", one.solution)
        assert not writes, f"{one.title} writes results, or trains"


def exercise(text: str = "### 1. Add\n\nHow much is 1 + 1?", solution: str = "1 + 1\n# It is 2.") -> nbformat.NotebookNode:
    new = nbformat.v4
    return new.new_notebook(cells=[new.new_markdown_cell(text), new.new_code_cell(solution, metadata={"tags": ["solution"]})])


def test_an_exercise_is_a_numbered_question_and_a_solution_that_says_what_to_see() -> None:
    [one] = exercises(exercise("## Exercises\n\n### 1. Add\n\nTwo ones.\nHow much are they?"))
    assert (one.title, one.task, one.solution) == ("Add", "Two ones.\nHow much are they?", "1 + 1\n# It is 2.")
    for wrong in (exercise("How much is 1 + 1?"), exercise("### 2. Add\n\nHow much is 1 + 1?"),
                  exercise("### 1. Add\n\nAdd 1 and 1."), exercise("### 1. How much is 1 + 1?"), exercise(solution="1 + 1")):
        with pytest.raises(DataError, match="exercise 1"):
            exercises(wrong)
    alone = exercise()
    del alone.cells[0]
    with pytest.raises(DataError, match="exercise 1"):
        exercises(alone)


def test_a_malformed_exercise_is_not_handed_out(tmp_path: Path) -> None:
    file = tmp_path / "01_adding.ipynb"
    nbformat.write(exercise(solution="1 + 1"), file)
    with pytest.raises(DataError, match="(?s)01_adding.*exercise 1"):
        write(tmp_path / "out", [file], {})
    assert not list((tmp_path / "out").iterdir())


def test_notebooks_and_quizzes_are_those_of_the_project_that_the_reader_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                               ) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / "course" / "quiz.yaml").write_text("{}")
    nbformat.write(exercise(), tmp_path / "notebooks" / "01_mine.ipynb")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert main(["--out", str(tmp_path / "out")]) == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["01_mine.ipynb"]


def test_what_is_no_quiz_and_what_has_no_solution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no solution"):
        without_solutions(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
    file = tmp_path / "quiz.yaml"
    for text in ("'01': [{question: 'a?', answers: [one, two], why: x}]", "[1, 2]", "'01': [{question: a}]", "a: ["):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="no quiz"):
            read_quiz(file)
