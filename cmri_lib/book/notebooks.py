"""A notebook as a page: its prose, its code, which folds away, and what a run has printed and drawn."""

from __future__ import annotations

import html
import re
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from cmri_lib.book import copies
from cmri_lib.book.links import Links, picture
from cmri_lib.cohort.data_sets import is_virtual
from cmri_lib.config.study import Study

#: Lines of code from which on a cell is folded, and of printed text from which on its middle is left out.
LONG_CODE, LONG_TEXT = 12, 40
#: The tags of a table, and what stays of their attributes.
TABLE = re.compile(r"</?(?:table|thead|tbody|tr|th|td)\b[^>]*>")
KEPT = re.compile(r'\b(?:colspan|rowspan)="\d+"')
#: The title that a figure is published with.
TITLE = re.compile(r'title=\s*f?"([^"{]+)"')
NOT_RUN = ("This notebook has not been run in the profile `{profile}` on the cohort `{dataset}`: below are its text and "
           "its code.")
NOT_KEPT = ("No copy of a run of this notebook in the profile `{profile}` on the cohort `{dataset}` is kept: below are "
            "its text, its code, and the figures that are published.")
AS_RUN = "As it was run in the profile `{profile}` on the cohort `{dataset}`{code}. {download}"


def page_of(source: Path) -> str:
    """The page of a notebook in the book."""
    return f"notebooks/{source.stem}.html"


def find_copy(study: Study, source: Path, earlier: Path) -> copies.Copy | None:
    """What the last run of a notebook left, or else what the book `earlier` holds of one; None where neither shows the figures
    that are published, and of cohorts of real patients always."""
    if not is_virtual(study.dataset):
        return None
    executed = study.root / "executed" / f"{source.stem}.ipynb"
    found = None
    if executed.is_file():
        found = copies.of_run(nbformat.read(executed, nbformat.NO_CONVERT), source.stem, study.root, study.dataset)
    return found or copies.of_book(earlier / "notebooks" / f"{source.stem}.ipynb", earlier, study.root)


def page(study: Study, source: Path, copy: copies.Copy | None, links: Links, book: Path) -> str:
    """Markdown of one notebook.

    Args:
        source: ``notebooks/NN_topic.py``. copy: what a run has left. book: where its images are by now.
    """
    written, place = jupytext.read(source), page_of(source)
    notebook = written if copy is None else copy.notebook
    note, parts = _note(study, source, written, copy), []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(links.rewrite(cell.source, "notebooks", place))
        elif cell.cell_type == "code":
            parts.append(code(cell))
            parts += [shown(output, cell, links, place, book) for output in cell.get("outputs", [])]
            if copy is None:
                parts += [links.figure(file, place, _title(cell)) for files in
                          copies.published_names(cell.source, study.root, study.dataset) for file in files]
    head, *rest = parts
    first, _, after = head.partition("\n")  # the title stands above the note
    return "\n\n".join([first, note, after.strip(), *rest]) + "\n"


def _note(study: Study, source: Path, written: NotebookNode, copy: copies.Copy | None) -> str:
    names = {"profile": study.profile, "dataset": study.dataset}
    if copy is None:
        drawn = any((study.root / "figures" / study.dataset / source.stem[:2]).glob("*.png"))
        return admonition("warning", (NOT_KEPT if drawn else NOT_RUN).format(**names))
    same = _code(written) == _code(copy.notebook)
    name = f"{source.stem}.ipynb"
    return admonition("note", AS_RUN.format(**names, code="" if same else ", with an earlier version of its code",
                                            download=f'<a href="{name}" download>Download it</a>'))


def _code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def admonition(kind: str, text: str) -> str:
    """A box with a text; `kind`: note, warning."""
    return f":::{{{kind}}}\n{text}\n:::"


def code(cell: NotebookNode) -> str:
    """A cell's source, folded if it is long, or the solution of an exercise."""
    lines = cell.source.count("\n") + 1
    fence = f"```python\n{cell.source}\n```"
    solution = "solution" in cell.metadata.get("tags", [])
    if not solution and lines <= LONG_CODE:
        return fence
    name = "Solution" if solution else "Code"
    return f'<details class="code"><summary>{name}, {lines} lines</summary>\n\n{fence}\n\n</details>'


def shown(output: NotebookNode, cell: NotebookNode, links: Links, place: str, book: Path) -> str:
    """One output of a cell in the light form (`copies`)."""
    if file := output.get("metadata", {}).get("picture"):
        if file.startswith("figures/"):
            return links.figure(file, place, _title(cell))
        return picture(file, book / file, place, _title(cell))
    if output.output_type == "stream":
        return text(output.text)
    if "text/html" in output.data:
        return table(output.data["text/html"])
    return text(output.data.get("text/plain", ""))


def text(printed: str) -> str:
    """What a cell has printed; the middle of a long text is left out."""
    lines = printed.rstrip("\n").split("\n")
    if len(lines) > LONG_TEXT:
        half = LONG_TEXT // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} lines left out …", *lines[-half:]]
    # A blank line would end the block of HTML.
    body = "\n".join(html.escape(line, quote=False) or "&#8203;" for line in lines)
    return f'<pre class="output" tabindex="0">{body}</pre>' if printed.strip() else ""


def table(markup: str) -> str:
    """A table as pandas writes it, without its styles: the book's apply."""
    bare = re.sub(r"<style.*?</style>|<script.*?</script>", "", markup, flags=re.DOTALL)
    inside = re.search(r"<table.*</table>", bare, re.DOTALL)
    if not inside:
        return f'<div class="output">{_in_one_block(bare)}</div>'
    plain = TABLE.sub(lambda found: _without_attributes(found[0]), inside[0])
    after = re.search(r"</table>\s*<p>(.*?)</p>", bare, re.DOTALL)  # "200 rows × 5 columns"
    note = f"<p>{after[1]}</p>" if after else ""
    return f'<div class="output table" tabindex="0">{_in_one_block(plain)}{note}</div>'


def _without_attributes(tag: str) -> str:
    name = re.match(r"</?\w+", tag)[0]
    return " ".join([name, *KEPT.findall(tag)]) + ">"


def _in_one_block(markup: str) -> str:
    """HTML without blank lines or indents: in Markdown they would end it, or make it code."""
    return "\n".join(line.strip() for line in markup.split("\n") if line.strip())


def _title(cell: NotebookNode) -> str:
    found = TITLE.search(cell.source)
    names = copies.PUBLISHES.findall(cell.source)
    return found[1].strip() if found else f"figure {names[0]}" if names else "figure"


def download(source: Path) -> str:
    """The place of the executed copy in the book."""
    return f"notebooks/{source.stem}.ipynb"
