"""From Markdown pages to HTML: Sphinx with the MyST parser and the theme Furo. Nothing in the pages is loaded from a network.

Formulas become MathML, by docutils' own converter: browsers show it without a script. No page bears a date, so that the same
sources make the same bytes.
"""

from __future__ import annotations

import io
import logging
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from cmri_lib.errors import StudyError

STATIC = Path(__file__).parent / "static"
#: What Sphinx writes and a reader does not need.
UNNEEDED = (".buildinfo", "objects.inv", "genindex.html", "_static/**/*.map", "_static/debug.css")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class BookError(StudyError):
    """A page of the book cannot be made."""


def configuration(name: str) -> dict[str, Any]:
    """Sphinx's settings."""
    return {
        "project": name, "author": "", "copyright": "", "language": "en", "html_title": name, "html_theme": "furo",
        "extensions": ["myst_parser", __name__], "source_suffix": {".md": "markdown"},
        "myst_enable_extensions": ["dollarmath", "colon_fence"], "myst_heading_anchors": 3,
        "myst_dmath_double_inline": True, "suppress_warnings": ["myst.header"], "html_math_renderer": "mathml",
        "html_static_path": [str(STATIC)], "html_css_files": ["book.css"], "html_js_files": ["book.js"],
        "html_copy_source": False, "html_show_sourcelink": False, "html_show_copyright": False, "html_use_index": False,
        "html_theme_options": {"navigation_with_keys": True, "top_of_page_buttons": []}, "pygments_style": "tango",
        "html_last_updated_fmt": None, "smartquotes": False}


def build(pages: Path, out: Path, name: str) -> None:
    """Make the HTML of all pages below a folder; `out` is emptied first.

    Raises:
        BookError: on anything that Sphinx warns of, for it would be a fault of a page.
    """
    trees, warnings = pages.parent / "doctrees", io.StringIO()
    for folder in (out, trees):
        shutil.rmtree(folder, ignore_errors=True)
    with patch_docutils(), docutils_namespace():
        Sphinx(str(pages), None, str(out), str(trees), "html", configuration(name), status=None, warning=warnings,
               freshenv=True).build(force_all=True)
    logging.getLogger("sphinx").handlers.clear()
    if found := ANSI.sub("", warnings.getvalue()).strip():
        raise BookError(f"Sphinx warns:\n{found[:2000]}", file=pages, remedy="mend the source of the page that is named")
    for file in (file for pattern in UNNEEDED for file in out.glob(pattern)):
        file.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry to an extension: the renderer of formulas."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"version": version("cmri_lib"), "parallel_read_safe": True, "parallel_write_safe": True}


def mathml(formula: str, *, block: bool) -> str:
    """A LaTeX formula as MathML. Raises docutils' MathError on commands that it does not know."""
    return tex2mathml(formula.strip(), as_block=block)


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode
