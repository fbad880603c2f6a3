"""Progress of a notebook while it is executed: the cell, the heading above it, and the training under way."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import threading
import time
from typing import TextIO

import nbformat
from tqdm import tqdm

#: A line of tqdm: name, percentage, time left, rate, and what a loop adds: the training's images per second.
BAR = re.compile(r"(?P<name>.*?):?\s*(?P<percent>\d+)%\|[^|]*\|[^\[]*\[[^<\]]*<(?P<left>[^,\]]+)"
                 r"(?:,\s*(?P<rate>[^,\]]+))?(?:,\s*(?P<more>[^\]]+))?\]")


class Progress:
    """Where a notebook has come to. On a terminal one line that is overwritten; in a log a line at the start
    and then one a minute. A thread of its own writes, because a cell may print nothing for minutes.

    Args:
        name: of the notebook.
        stream: where to write; by default the standard error stream.
        every: seconds between two lines.
    """

    def __init__(self, name: str, stream: TextIO | None = None, every: float | None = None):
        self.name = name
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.every = every or (0.5 if self.terminal else 60.0)
        self.started = time.perf_counter()
        self.cells: dict[int, str] = {}  # position of each code cell: the heading it stands under
        self.number, self.heading, self.bar, self.shown = 0, "", "", 0
        self.finished = threading.Event()
        self.writer = threading.Thread(target=self._write_on, daemon=True)

    def __enter__(self) -> Progress:
        self.writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finished.set()
        self.writer.join()
        if self.terminal:
            self._write("")
            self.stream.write("\r")
            self.stream.flush()

    def start(self, notebook: nbformat.NotebookNode) -> None:
        """Count the cells that will be executed, and announce the notebook in a log."""
        heading = ""
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "markdown":
                heading = ([heading] + re.findall(r"^#+\s+(.+)$", cell.source, re.M))[-1]
            elif cell.cell_type == "code" and cell.source.strip():
                self.cells[index] = textwrap.shorten(re.sub(r"[*`$]", "", heading), 48, placeholder=" …")
        if not self.terminal:
            self._write(f"{self.name}: {len(self.cells)} cells to execute")

    def cell(self, index: int) -> None:
        """The cell at position `index` of the notebook begins."""
        self.number, self.heading, self.bar = list(self.cells).index(index) + 1, self.cells[index], ""

    def output(self, text: str) -> None:
        """Text that the cell has printed; the state of the last progress bar in it is kept."""
        for segment in reversed(re.split(r"[\r\n]", text)):
            if bar := BAR.search(segment):
                speed = re.sub(r"(?<=\d)(?=[a-z])", " ", bar["more"] or bar["rate"] or "?")
                # tqdm writes ? for what it does not know yet.
                known = [part for part in (speed, f"{bar['left']} left") if "?" not in part]
                state = ", ".join([f"{bar['name']} {bar['percent']} %".strip(), *known])
                self.bar = "" if bar["percent"] == "100" else state
                return

    def where(self) -> str:
        """For example ``cell 5 of 19``."""
        return f"cell {self.number} of {len(self.cells)}" if self.number else "starting"

    def line(self, width: int | None = None) -> str:
        """The state in one line; what does not fit into `width` is first the heading, then the end."""
        head = f"{self.name}: {self.where()} after {tqdm.format_interval(time.perf_counter() - self.started)}"
        bar = f" | {self.bar}" if self.bar else ""
        heading = f", {self.heading}" if self.heading else ""
        if width is None:
            return head + heading + bar
        room = max(0, width - len(head) - len(bar))
        if len(heading) > room:
            heading = heading[:room - 1] + "…" if room > 8 else ""
        whole = head + heading + bar
        return whole if len(whole) <= width else whole[:max(0, width - 1)] + "…"

    def _write_on(self) -> None:
        while not self.finished.wait(self.every):
            self._write(self.line(self._columns() - 1 if self.terminal else None))

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):  # a terminal that does not know its width
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "replace").decode(encoding)  # headings hold more than every code page
        if self.terminal:
            self.stream.write("\r" + text.ljust(self.shown))
            self.shown = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()
