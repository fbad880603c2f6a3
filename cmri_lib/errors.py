"""The study's one family of errors. Every message names the file, the field and the remedy.

Anything may raise these; nothing in the library raises a bare ``ValueError`` for bad input. A reader of the
message must be able to mend the input without reading the code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path


class StudyError(Exception):
    """Bad input to the study.

    Args:
        problem: what is wrong, with the offending value.
        file: the file it was found in, if any.
        field: the column, header entry, label or parameter concerned.
        remedy: what the user can do about it.
    """

    def __init__(self, problem: str, *, file: str | Path | None = None, field: str | None = None, remedy: str):
        self.problem, self.file, self.field, self.remedy = problem, file, field, remedy
        where = " ".join(filter(None, [str(file) if file else "", f"[{field}]" if field else ""]))
        super().__init__(f"{where + ': ' if where else ''}{problem}\n  Remedy: {remedy}")

    def __reduce__(self) -> tuple:
        """So that an error crosses from one process to another."""
        return partial(type(self), self.problem, file=self.file, field=self.field, remedy=self.remedy), ()


class DataError(StudyError):
    """An image, a mask, a header or a metadata table cannot be used."""


class NothingToDo(DataError):
    """A notebook finds nothing in this cohort that it could do; the pipeline goes on without it."""


class SplitError(StudyError):
    """A split of patients is incomplete or lets a patient appear on both sides."""


class ParameterError(StudyError):
    """A parameter is unknown, of the wrong type, or out of range."""


class CheckpointError(StudyError):
    """Saved weights do not belong to the model or the training they are asked for."""


def command(main: Callable[..., int]) -> Callable[..., int]:
    """A command line whose bad input ends as the message on standard error and exit status 2, without a traceback."""
    @wraps(main)
    def explained(arguments: list[str] | None = None) -> int:
        try:
            return main(arguments)
        except StudyError as problem:
            print(problem, file=sys.stderr)
            return 2
    return explained
