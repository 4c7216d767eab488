"""LaTeX and HTML tables: compiled, and inert to what is in them."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_tables import TABLE

from harness.tables import Column, Quantity, Row, Table, render
from harness.tables.citation import Citation
from harness.tables.latex import escape
from harness.tables.model import BEST, TIED

ID = "harness:toys:1:0123456789abcdef:01234567"
NASTY = Table(
    "toys",
r"50% of $x_1 & \input{secret} {} #3 ~ ^ | <b> “ü” 漢",
    {"model": "a_b", "path": r"c:\d"},
    [Column("method", "method", text=True), Column("a", "ppl_x ↓", "µs", group="a"), Column("d", "Δ ln", group="a"),
     Column("seeds", "seeds", text=True)],
    [
        Row("m", {}, {"method": "<script>alert(1)</script>", "a": Quantity(1.25, 1.2, 1.3, mark=BEST), "d": "baseline",
                      "seeds": "2/2"}),
        Row("n", {}, {"method": r"n(k='\\')", "a": Quantity(1.26, 1.2, 1.3, mark=TIED),
                      "d": Quantity(-0.12, -0.2, 0.01, "better", signed=True), "seeds": "1/2"}, (3,), "control"),
    ],
    ["A general note: -0.5%.", "ppl: p|a_b:test@12#4|v:1", "Seed 1 failed: $HOME & 100%"],
    general=2,
    protocol=["ppl: p|a_b:test@12#4|v:1"],
    citation=Citation(ID, "harness run 'my suite.yaml'"),
    caption="Toys & {braces}",
)  # fmt: skip


def test_best_rows_are_bold_and_ties_have_a_dagger() -> None:
    text = render([NASTY], "latex")
    assert r"\textbf{1.250} {\scriptsize [1.200, 1.300]}" in text
    assert r"1.260$^{\dagger}$ {\scriptsize" in text
    assert r"$-$0.12 {\scriptsize [$-$0.20, $+$0.01]} better" in text
    assert r"\multicolumn{2}{c}{ppl\_x $\downarrow$ ($\mu$s)}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"(null control)\textsuperscript{a}" in text
    assert r"\textsuperscript{a}\,Seed 1 failed: \$HOME \& 100\%\par" in text


def test_the_caption_holds_the_protocol_and_the_id() -> None:
    caption = re.search(r"\\caption\[.*?\]\{(.*)\}\n", render([NASTY], "latex"))
    assert caption
    plain = caption.group(1).replace(r"\allowbreak ", "")
    assert r"\texttt{ppl:" in plain
    assert ID in plain
    assert "Toys \\& \\{braces\\}" in plain


def test_signs_of_numbers_only() -> None:
    assert escape("-0.5, +3 a-b 1e-05 [-1, 2] gpt-2") == "$-$0.5, $+$3 a-b 1e-05 [$-$1, 2] gpt-2"
    assert escape("漢") == "U+6F22"


needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")


def compile_latex(folder: Path, text: str) -> str:
    (folder / "main.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "main.pdf").stat().st_size > 1000
    return done.stdout


@needs_latex
def test_a_table_compiles_as_it_is(tmp_path: Path) -> None:
    log = compile_latex(tmp_path, render([TABLE, NASTY], "latex"))
    assert "Missing character" not in log


@needs_latex
def test_a_table_compiles_inside_a_paper(tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(render([NASTY], "latex"))
    paper = (
        "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\nBefore.\n"
        "\\input{table}\nAfter.\n\\end{document}\n"
    )
    log = compile_latex(tmp_path, paper)
    assert "Overfull" not in log


class Page(html.parser.HTMLParser):
    """Tags of a page, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_html_is_inert_and_whole() -> None:
    text = render([NASTY, TABLE], "html")
    page = Page(text)
    assert "script" not in page.tags
    assert (page.tags.count("table"), page.tags.count("tr")) == (2, 6)
    assert "<script>alert(1)</script>" in page.words
    assert "<strong>1.250</strong>" in text
    assert f'id="{ID}"' in text
    assert "1.260†" in text
