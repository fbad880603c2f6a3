"""What a teacher hands out: no solution in it, and every quiz has one right answer."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from cmri_lib.course import BLANK, ROOT, Question, main, quiz_page, read_quiz, without_solutions
from cmri_lib.errors import DataError

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
        assert (tmp_path / f"{file.stem[:2]}_quiz.md").read_text(encoding="utf-8").count("<details>") == len(QUIZ[file.stem[:2]])


def test_what_is_no_quiz_and_what_has_no_solution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no solution"):
        without_solutions(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
    file = tmp_path / "quiz.yaml"
    for text in ("'01': [{question: 'a?', answers: [one, two], why: x}]", "[1, 2]", "'01': [{question: a}]", "a: ["):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="no quiz"):
            read_quiz(file)
