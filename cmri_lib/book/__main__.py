"""Make the book of the study: HTML to browse without a network, in ``book/``; begin with ``book/index.html``.

    python -m cmri_lib.book                    as params.yaml says
    python -m cmri_lib.book --out elsewhere
    python -m cmri_lib.book --check            whether every link of the finished book leads somewhere
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cmri_lib.book.check import faults
from cmri_lib.book.making import make
from cmri_lib.config.study import open_study
from cmri_lib.errors import command


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the book is whole."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.book", description="Make the book of the study.")
    parser.add_argument("--profile", help="whose results; default: as params.yaml says")
    parser.add_argument("--dataset", help="whose results; default: as params.yaml says")
    parser.add_argument("--out", type=Path, help="the folder of the book; default: book")
    parser.add_argument("--check", action="store_true", help="only check the book that is there")
    options = parser.parse_args(arguments)
    study, started = open_study(options.profile, options.dataset), time.perf_counter()
    book = options.out or study.root / "book"
    if not options.check:
        print(make(study, book).text)
    found = faults(book.resolve())
    print("\n".join(found) if found else f"{book}: every link leads somewhere, nothing comes from a network "
          f"({time.perf_counter() - started:.0f} s). Open {book / 'index.html'}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
