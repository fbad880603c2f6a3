"""The book: links lead where they should, a copy of another run is not shown, and pages say what code and results say."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import browser
import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cmri_lib.book import claims, copies, facts, glossary, guide, making, notebooks, site, systems
from cmri_lib.book.check import faults
from cmri_lib.book.links import NOT_MADE, Links, bands_of, outside_code, relative
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.reporting import review
from cmri_lib.reporting.primary_tests import PRIMARY
from cmri_lib.reporting.results import CLAIM_COLUMNS, SCORE_COLUMNS

ROOT = Path(__file__).parents[2]
TOPIC = "01_topic"


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def chart(seed: int, size: tuple[int, int] = (300, 200), margin: int = 10) -> Image.Image:
    """A picture that differs by seed, with a white margin."""
    picture = Image.new("RGB", size, "white")
    inside = np.random.default_rng(seed).integers(0, 255, (8, 8)).astype(np.uint8)
    picture.paste(Image.fromarray(inside).resize((size[0] - 2 * margin, size[1] - 2 * margin), 0), (margin, margin))
    return picture


def executed(*pictures: Image.Image, code: str = 'figures.publish(study, "01/chart", table, draw)') -> nbformat.NotebookNode:
    """What Papermill leaves of a notebook with one cell that shows `pictures`."""
    shown = [nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(png(p)).decode(), "text/plain": "<Figure>"})
             for p in pictures]
    progress = nbformat.v4.new_output("stream", name="stderr", text="100%|####|")
    cell = nbformat.v4.new_code_cell(code, outputs=[progress, *shown])
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01 · Topic\n\n**Question.** Why?"), cell])
    made.metadata["papermill"] = {"end_time": "2026-01-01T00:00:00", "exception": None, "parameters": {}}
    return made


@pytest.fixture
def project(tmp_path: Path) -> Study:
    """A project with one notebook that publishes one figure."""
    for name in ("figures/phantom/01", "notebooks", "executed", "results/phantom", "cmri_lib/systems"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "figures/phantom/01/chart.png").write_bytes(png(chart(1)))
    (tmp_path / "notebooks" / f"{TOPIC}.py").write_text("# %% [markdown]\n# # 01 · Topic\n\n# %%\nx = 1\n")
    (tmp_path / "README.md").write_text("# Study\n\nWords.\n\n## Results\n\nSee [code](cmri_lib/a.py).\n")
    (tmp_path / "cmri_lib/a.py").write_text('"""A."""\n')
    return replace(open_study("smoke", "phantom", ROOT), root=tmp_path)


# Links


def test_links_lead_to_pages_files_and_code(project: Study) -> None:
    links = Links(project.root)
    text = ("See [the topic](notebooks/01_topic.py), [`code`](cmri_lib/a.py), [web](https://x.org) and notebook 01, "
            "not `[a](b.py)`.")
    assert links.rewrite(text, "", "guide/use.html") == (
        'See <a href="../notebooks/01_topic.html">the topic</a>, <a href="../source/cmri_lib/a.html">`code`</a>, '
        '[web](https://x.org) and <a href="../notebooks/01_topic.html">notebook 01</a>, not `[a](b.py)`.')
    assert links.sources == {"cmri_lib/a.py"} and not links.files
    shown = links.rewrite("![a chart](../figures/phantom/01/chart.png)", "notebooks", "notebooks/01_topic.html")
    assert 'src="../figures/phantom/01/chart.png" width="300" height="200"' in shown and 'alt="a chart"' in shown
    assert links.files == {"figures/phantom/01/chart.png"}
    assert links.rewrite("![b](figures/phantom/01/gone.png)", "", "index.html") == f"b {NOT_MADE}"
    with pytest.raises(DataError, match="(?s)nowhere.md.*mend the link"):
        links.rewrite("[gone](nowhere.md)", "", "index.html")


def test_claims_are_linked_where_they_are_listed(project: Study) -> None:
    text = "- F1: it says\n- T9: no claim\n\nThe T1 of blood (claim P1)."
    assert Links(project.root).rewrite(text, "notebooks", "notebooks/01_topic.html") == (
        '- <a href="../claims/F1.html">F1</a>: it says\n- T9: no claim\n\n'
        'The T1 of blood (claim <a href="../claims/P1.html">P1</a>).')


@given(st.text("ab`~\n", max_size=40))
def test_text_without_changes_stays_as_it_is(text: str) -> None:
    assert outside_code(text, lambda part: part) == text


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
def test_an_address_leads_from_a_page_to_its_target(target: list[str], page: list[str]) -> None:
    found = Path("/book", *page).parent / relative("/".join(target), "/".join(page))
    assert os.path.normpath(found) == "/book/" + "/".join(target)


# Copies of a run


def test_the_published_figure_stands_in_the_place_of_the_image(project: Study) -> None:
    cut = chart(1).crop((4, 4, 296, 196))  # a notebook shows a figure with less margin
    copy = copies.of_run(executed(cut), TOPIC, project.root, "phantom")
    output, = copy.notebook.cells[1].outputs  # nor progress bars
    assert output.metadata.picture == "figures/phantom/01/chart.png" and not copy.images
    assert "image/png" not in output.data and "papermill" not in copy.notebook.metadata


def test_a_copy_of_another_run_is_not_shown(project: Study) -> None:
    other = executed(chart(2))
    failed, under_way = executed(chart(1)), executed(chart(1))
    failed.metadata.papermill.exception = True
    under_way.metadata.papermill.end_time = None
    unpublished = executed(chart(1), code='figures.publish(study, "01/other", table, draw)')
    nothing = executed(chart(1), code="draw()")
    for run in (other, failed, under_way, unpublished, nothing):
        assert copies.of_run(run, TOPIC, project.root, "phantom") is None
    assert copies.of_run(executed(chart(1)), TOPIC, project.root, "phantom") is not None


def test_a_figure_that_was_left_out_may_be_missing(project: Study) -> None:
    left_out = executed(code='if some:\n    figures.publish(study, "01/other", table, draw)').cells[1]
    for extra, shown in ((left_out, True), (executed(chart(1), code=left_out.source).cells[1], False)):
        run = executed(chart(1))
        run.cells.append(extra)
        assert (copies.of_run(run, TOPIC, project.root, "phantom") is not None) == shown


def test_images_that_nobody_published_become_files(project: Study) -> None:
    run = executed(chart(3), chart(1))
    copy = copies.of_run(run, TOPIC, project.root, "phantom")
    name, = copy.images
    assert [o.metadata.picture for o in copy.notebook.cells[1].outputs] == [name, "figures/phantom/01/chart.png"]
    kept = np.asarray(Image.open(io.BytesIO(copy.images[name])).convert("RGB"), int)
    assert np.abs(kept - np.asarray(chart(3), int)).max() <= 10


def test_a_figure_of_a_loop_is_found_by_what_it_shows(project: Study) -> None:
    for seed in (5, 6):
        (project.root / f"figures/phantom/01/loop_{seed}.png").write_bytes(png(chart(seed)))
    code = 'figures.publish_slices(study, f"01/loop_{name}", rows)'
    copy = copies.of_run(executed(chart(6), code=code), TOPIC, project.root, "phantom")
    assert copy.notebook.cells[1].outputs[0].metadata.picture == "figures/phantom/01/loop_6.png"
    assert copies.of_run(executed(chart(7), code=code), TOPIC, project.root, "phantom") is None


def test_an_earlier_book_stands_in_for_a_run_until_a_figure_changes(project: Study) -> None:
    source, book = project.root / "notebooks" / f"{TOPIC}.py", project.root / "book"
    nbformat.write(executed(chart(3), chart(1)), project.root / "executed" / f"{TOPIC}.ipynb")
    first = notebooks.find_copy(project, source, book)
    for place, content in first.images.items():
        (book / place).parent.mkdir(parents=True, exist_ok=True)
        (book / place).write_bytes(content)
    nbformat.write(first.notebook, book / notebooks.download(source))
    (project.root / "executed" / f"{TOPIC}.ipynb").unlink()
    again = notebooks.find_copy(project, source, book)
    assert again == first
    pages = [notebooks.page(project, source, copy, Links(project.root), book) for copy in (first, again)]
    assert pages[0] == pages[1] and "with an earlier version of its code" in pages[0]
    (project.root / "figures/phantom/01/chart.png").write_bytes(png(chart(4)))
    assert notebooks.find_copy(project, source, book) is None


def test_no_run_on_real_patients_is_shown(project: Study) -> None:
    source = project.root / "notebooks" / f"{TOPIC}.py"
    nbformat.write(executed(chart(1)), project.root / "executed" / f"{TOPIC}.ipynb")
    real = replace(project, params=replace(project.params, dataset="acdc"))
    (project.root / "figures/acdc/01").mkdir(parents=True)
    (project.root / "figures/acdc/01/chart.png").write_bytes(png(chart(1)))
    assert notebooks.find_copy(project, source, project.root) is not None
    assert notebooks.find_copy(real, source, project.root) is None
    page = notebooks.page(real, source, None, Links(project.root), project.root)
    assert "No copy of a run of this notebook in the profile `smoke` on the cohort `acdc` is kept" in page
    assert page.startswith("# 01 · Topic\n\n:::{warning}")


# Pages


def test_tables_keep_their_cells_and_lose_their_styles() -> None:
    frame = pd.DataFrame({"a < b": [1.5]}, index=pd.MultiIndex.from_tuples([("x", "y")]))
    markup = notebooks.table(f"<div>\n<style scoped>\n.x {{}}\n</style>\n{frame.to_html(border=1)}\n</div>")
    assert "style" not in markup and "border" not in markup and "\n\n" not in markup
    assert "<td>1.5</td>" in markup and "<th>a &lt; b</th>" in markup


def test_long_texts_are_cut_in_the_middle_and_long_code_folds() -> None:
    shown = notebooks.text("\n".join(map(str, range(100))))
    assert shown.count("\n") == notebooks.LONG_TEXT and "60 lines left out" in shown and "\n99</pre>" in shown
    assert notebooks.text("a < b\n\nc") == '<pre class="output" tabindex="0">a &lt; b\n&#8203;\nc</pre>'
    cell = nbformat.v4.new_code_cell("\n".join(["x = 1"] * notebooks.LONG_CODE))
    assert notebooks.code(cell).startswith("```python")
    assert "<summary>Code, 13 lines" in notebooks.code(nbformat.v4.new_code_cell(cell.source + "\nx"))
    cell.metadata["tags"] = ["solution"]
    assert "<summary>Solution, 12 lines" in notebooks.code(cell)


def test_formulas_become_mathml() -> None:
    assert re.search(r"<mfrac>\s*<mi>a</mi>\s*<mi>b</mi>\s*</mfrac>", site.mathml(r"\frac{a}{b}", block=False))
    assert 'display="block"' in site.mathml("x", block=True)


def test_rows_of_a_grid_are_told_apart() -> None:
    grid = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(grid)
    draw.rectangle((180, 2, 300, 10), fill="black")  # the title
    draw.rectangle((5, 90, 60, 200), fill="black")  # names at the left, across a gap
    for top in (20, 110, 200):
        draw.rectangle((120, top, 390, top + 84), fill="black")
    assert bands_of(grid, 3) == [(20, 105), (110, 195), (200, 285)]
    assert bands_of(grid, 4) == []


def results(tests: list[dict] = (), scores: list[dict] = ()) -> facts.Results:
    return facts.Results(pd.DataFrame(list(scores), columns=list(SCORE_COLUMNS)),
                         pd.DataFrame(list(tests), columns=[*CLAIM_COLUMNS, "after Holm"]), {"F1": "06"})


def test_the_page_of_a_claim_says_what_was_stated_and_found() -> None:
    found = {"claim": "F1", "dataset": "phantom", "profile": "smoke", "test": PRIMARY["F1"].text, "primary": True,
             "effect": -0.0312, "low": -0.1, "high": 0.01, "unit": "MMD", "p": 0.25,
             "verdict": "undecided", "after Holm": "undecided"}
    links = Links(ROOT)
    page = claims.page("F1", results([found]), links)
    for part in (review.CLAIMS["F1"], PRIMARY["F1"].comparison, "-0.03 [-0.10, 0.01]", ">undecided</span>",
                 "../notebooks/06_fidelity.html", "../systems/U5.html", "Every criterion must hold"):
        assert part in page, part
    assert "Not yet measured." in claims.page("F1", results(), links)
    explored = [found | {"dataset": cohort, "primary": False, "test": "flow labels concat − flow none: Dice above 0"}
                for cohort in ("acdc", "phantom", "phantom")]
    page = claims.page("F1", results(explored), links)
    assert page.index("| phantom |") < page.index("| acdc |"), "the cohort in which more is tested comes first"
    assert page.count("flow with a mask (LV + Myo + RV) by concatenation − flow without a mask: Dice above 0") == 3
    assert claims.page("R7", results(), links).count("below the margin") == 2, "criteria of four comparisons are alike"
    index = claims.index(open_study("smoke", "phantom", ROOT), results([found]), links)
    assert f"undecided: 1; not yet measured: {len(review.CLAIMS) - 1}." in index
    assert all(f'"{claim}.html"' in index for claim in review.CLAIMS)


def test_every_system_says_in_words_and_formulas_what_makes_it_that_system() -> None:
    ideas = facts.ideas()
    assert list(ideas) == [identity for identity in facts.identities() if identity in ideas]
    assert set(review.SYSTEMS) <= set(ideas)
    for identity, one in ideas.items():
        assert set(one) - {"paper", "judged"} == {"idea", "formulas", "where"} and one["formulas"], identity
        for formula in one["formulas"]:
            made = site.mathml(formula, block=True)
            # An accented letter with an index would have it below, as a sum has its limits: write \hat{x_0}.
            assert made.startswith("<math") and not re.search(r"[ˆ¯˜]</mo>\s*</munderover>", made), (identity, formula)
        named = set(re.findall(r"\b[UC]\d+\b", f"{one['idea']} {one['where']}"))
        assert named <= set(ideas) - {identity}, (identity, named)


def test_the_glossary_has_each_term_once_with_the_notebooks_that_explain_it(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    first = ("# %% [markdown]\n# ### Terms\n#\n# - A **mask** is an image of labels, and says for every pixel what lies\n"
             "#   there, be it nothing.\n# - **AUC**: short.\n"
             "# - **of the arms** this one is no term, however long it may be in the end.\n")
    second = ("# %% [markdown]\n# - The **Mask** of another notebook is explained once more, at greater length than before.\n"
              "#\n# So.\n")
    for name, text in (("01_a", first), ("02_b", second)):
        (tmp_path / "notebooks" / f"{name}.py").write_text(text)
    study = replace(open_study("smoke", "phantom", ROOT), root=tmp_path)
    assert [(e.term, e.notebook) for e in glossary.entries(study)] == [("mask", "01"), ("Mask", "02")]
    lines = [line for line in glossary.page(study, Links(tmp_path)).splitlines() if line.startswith("- ")]
    assert len(lines) == 1 and "what lies there, be it nothing. (" in lines[0]
    assert all(f'notebooks/{name}.html' in lines[0] for name in ("01_a", "02_b"))
    real = glossary.page(open_study("smoke", "phantom", ROOT), Links(ROOT))
    assert "**AUC**" in real and real.index("**ablation**") < real.index("**AUC**") < real.index("**Wasserstein distance**")


def test_the_page_and_the_card_of_a_system_hold_its_scores() -> None:
    row = {"dataset": "phantom", "profile": "smoke", "system": "U6 DDPM", "family": "diffusion", "conditioning": "none",
           "axis": "fidelity", "metric": "mmd_anatomy", "value": 0.1234, "low": 0.1, "high": float("nan"), "n": 9, "seeds": 1,
           "better": "lower", "floor": 0.001, "ceiling": 0.0}
    study, found = open_study("smoke", "phantom", ROOT), results(scores=[row])
    card = facts.card(study, "U6", found)
    again = json.loads(json.dumps(card, allow_nan=False))
    assert again["scores"][0]["value"] == 0.1234 and again["scores"][0]["high"] is None
    assert again["systems"][0]["notebook"] == "04" and "cmri_lib.generators.diffusion" in again["systems"][0]["made of"]
    assert again["systems"][0]["training"]["steps"] == study.params.diffusion.training.steps
    links = Links(ROOT)
    page = systems.page(study, card, found, links)
    for part in ("# U6 DDPM", "\\alpha_n \\varepsilon - \\sigma_n x_0", "0.123",
                 "../notebooks/04_diffusion.html", "../source/cmri_lib/generators/diffusion.html",
                 "https://arxiv.org/abs/2006.11239", '"../claims/F1.html"'):
        assert part in page, part
    assert "cmri_lib/systems/unconditional.py" in links.sources
    assert systems.NOT_ATTACKED not in page and "../results/phantom/privacy/u6-ddpm.html" in page
    assert "results/phantom/privacy/u6-ddpm" in guide.source_pages(study, links)
    unmeasured = systems.page(study, facts.card(study, "C18", found), found, links)
    assert systems.NOT_MEASURED in unmeasured and "latent_gan" in unmeasured


def test_every_system_of_the_review_has_an_entry_a_variant_and_a_notebook() -> None:
    for identity in review.SYSTEMS:
        found = facts.variants(identity)
        assert found and facts.entry_file(ROOT, identity), identity
        assert all(facts.notebook_of_stage(ROOT, one.stage) for one in found), identity


def test_a_claim_names_its_systems_and_a_system_its_claims() -> None:
    table = results().claims
    assert facts.systems_of("F1", table) == ["U5", "U6"] and "F1" in facts.claims_of("U6", table)
    assert "U1" not in facts.systems_of("F2", table)  # U10 is not U1


def test_papers_get_their_addresses_and_markup_is_escaped() -> None:
    first, second = (f"https://arxiv.org/abs/{number}" for number in ("2006.11239", "2102.09672"))
    assert systems.prose("Ho (arXiv 2006.11239), 2102.09672: ``x`` * a < 1.2345") == (
        rf"Ho ([arXiv 2006.11239]({first})), [2102.09672]({second}): `x` \* a \< 1.2345")


def test_the_readme_has_the_sections_and_paragraphs_of_the_book() -> None:
    made = guide.pages(open_study("smoke", "phantom", ROOT), Links(ROOT))
    assert set(guide.SECTIONS) <= set(made) and "## The scoreboard" in made["index"]
    assert not any(NOT_MADE in page for page in made.values()), "a figure that is published is linked under another name"
    with pytest.raises(DataError, match="(?s)Nothing.*keep its heading"):
        guide.section("# A\n\n## B\n", "Nothing")


# The whole


def small_pages(folder: Path) -> None:
    """An index and a page, with a formula, a table, a figure and folded code."""
    folder.mkdir(parents=True)
    (folder / "index.md").write_text("# Book\n\nGabor filters.\n\n```{toctree}\none\n```\n")
    (folder / "one.md").write_text("# One\n\n$x^2$ and\n\n$$\\frac{a}{b}$$\n\n" + notebooks.text("printed") + "\n\n"
                                   + notebooks.table(pd.DataFrame([range(40)]).to_html()) + "\n\n"
                                   '<figure class="picture"><a href="a.png"><img src="a.png" alt="a chart"></a></figure>\n')


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book")
    small_pages(folder / "pages")
    site.build(folder / "pages", folder / "html", "Small")
    chart(1).save(folder / "html" / "a.png")
    return folder / "html"


def test_a_book_is_whole_and_comes_without_a_network(book: Path) -> None:
    assert faults(book) == []
    assert "<math" in (book / "one.html").read_text() and "gabor" in (book / "searchindex.js").read_text()


def test_the_same_sources_make_the_same_bytes(book: Path, tmp_path: Path) -> None:
    small_pages(tmp_path / "elsewhere" / "pages")
    site.build(tmp_path / "elsewhere" / "pages", tmp_path / "html", "Small")
    files = {f.relative_to(tmp_path / "html"): f.read_bytes() for f in (tmp_path / "html").rglob("*") if f.is_file()}
    assert len(files) > 10 and all((book / name).read_bytes() == content for name, content in files.items())


def test_a_warning_of_sphinx_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# A\n\n```{toctree}\nmissing\n```\n")
    with pytest.raises(site.BookError, match="missing"):
        site.build(tmp_path / "pages", tmp_path / "html", "Small")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_nothing_but_a_book_makes_room_for_one(project: Study, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site_of_another = project.root / "site"  # an index page alone makes no book
    site_of_another.mkdir()
    (site_of_another / "index.html").write_text("<p>x</p>")
    before = files_of(project.root)
    monkeypatch.chdir(project.root)
    for taken in (Path("."), project.root, site_of_another, Path("README.md")):
        with pytest.raises(ParameterError, match="(?s)neither a book nor an empty folder.*name a new folder"):
            making.make(project, taken)
    assert files_of(project.root) == before

    monkeypatch.setattr(making, "_reviewed", lambda *given: 1 / 0)  # where folders are taken, the making begins
    (project.root / "empty").mkdir()
    shutil.copytree(book, project.root / "book")
    for free in ("empty", "new", "book"):
        with pytest.raises(ZeroDivisionError):
            making.make(project, project.root / free)
    assert files_of(project.root / "book") == files_of(book)


def test_a_book_takes_the_place_of_the_earlier_one_when_it_is_whole(book: Path, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    place, earlier = tmp_path / "books" / "book", files_of(book)
    making._put(book, place)
    assert files_of(place) == earlier
    (place / "old.html").write_text("gone by then")
    making._put(book, place)
    assert files_of(place) == earlier and os.listdir(place.parent) == ["book"]

    def full(made: Path, new: Path, dirs_exist_ok: bool) -> None:
        new.mkdir(exist_ok=dirs_exist_ok)
        (new / "index.html").write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(making.shutil, "copytree", full)
    with pytest.raises(DataError, match="(?s)No space left.*check free space"):
        making._put(book, place)
    assert files_of(place) == earlier and os.listdir(place.parent) == ["book"]


@pytest.mark.parametrize("markup,fault", [
    ('<a href="no.html">x</a>', "links to no.html, which does not exist"),
    ('<a href="#no">x</a>', "a place that the page does not have"),
    ('<img src="https://a.org/x.png" alt="">', "loads https://a.org/x.png from a network"),
    ('<img src="no.png" alt="">', "links to no.png"),
    ('<script src="//a.org/x.js"></script>', "from a network"), ('<img src="a.html">', "without words")])
def test_faults_of_a_book_are_found(tmp_path: Path, markup: str, fault: str) -> None:
    (tmp_path / "a.html").write_text(f'<p id="yes">x</p><a href="#yes">x</a><a href="https://a.org">x</a>{markup}')
    found = faults(tmp_path)
    assert len(found) == 1 and fault in found[0]


def test_a_style_sheet_that_loads_from_a_network_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>x</p>")
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.org/a.woff') } /* see https://b.org */")
    assert faults(tmp_path) == ["a.css loads https://fonts.org/a.woff from a network"]
    assert faults(tmp_path / "nothing") == ["nothing: no pages"]


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_it_all(book: Path) -> None:
    bad_page = '<article><img src="gone.png" alt=""><p style="width: 900px">wide</p></article><script>no()</script>'
    (book / "bad.html").write_text(bad_page)
    with browser.opened() as window:
        assert browser.faults(window, book, ["index.html", "one.html"]) == []
        assert browser.search(window, book, "gabor") == ["Book"]
        assert any(inside for _, inside, _ in filter(None, browser.reached_by_tab(window, book, "one.html", 12)))
        bad = " ".join(browser.faults(window, book, ["bad.html"]))
    (book / "bad.html").unlink()
    assert "gone.png is not shown" in bad and "sticks out" in bad and "no is not defined" in bad


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
def test_a_page_left_while_it_is_asked_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>x</p>")
    leaving = "sessionStorage.left ? true : new Promise(() => { sessionStorage.left = 1; location.reload(); })"
    with browser.opened() as window:
        window.open((tmp_path / "a.html").as_uri())
        assert window.until(leaving)
        assert not window.until("false", seconds=0.2)
        with pytest.raises(browser.PageGone):
            window.value("new Promise(() => location.reload())")
