"""How a leaderboard is shown: in words no surer than the data, and in every shape it may have."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.fakes.leaderboards import board, cell, typical
from tipbench.leaderboard import words
from tipbench.leaderboard.html import to_html
from tipbench.leaderboard.markdown import to_markdown
from tipbench.leaderboard.model import JudgeSummary, Leaderboard, ReportTip
from tipbench.leaderboard.plots import MOST_ROWS, forest_plot, tradeoff_plots
from tipbench.leaderboard.terminal import error_bar, render

pytestmark = pytest.mark.unit
EVIL = "<script>alert(1)</script>|$x$"
SHAPES = {
    "typical": typical(),
    "empty": board(),
    "one": board(cell(1, 3.0)),
    "two": board(cell(1, 3.0), cell(2, 2.0, tied=False)),
    "unjudged": board(cell(1, None), cell(2, None), judges=()),
    "one scenario": board(cell(1, 3.0, ci_low=None, ci_high=None), cell(2, 2.5, tied=None, ci_low=None, ci_high=None)),
    "evil": board(cell(1, 3.0, model=EVIL, prompt=EVIL), cell(2, 2.0, model=EVIL), experiment="tip-bench-x"),
    "forty": board(
        *(
            cell(r, 4.5 - 0.05 * r, model=f"a-long-name-of-a-model-from-somewhere:{r}b-instruct-q4_K_M")
            for r in range(1, 41)
        )
    ),
    "same cost": board(
        cell(1, 3.0, peak_memory_bytes=5, tokens_per_s=1), cell(2, 3.0, peak_memory_bytes=5, tokens_per_s=1)
    ),
    "no cost": board(cell(1, 3.0, peak_memory_bytes=None, tokens_per_s=None, ttft_s=None, seconds_per_tip=None)),
    "own criteria": board(cell(1, 3.0, charm=2.0), criteria=("charm",), weights={"charm": 1.0}),
}


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (board(), "Nothing has been collected yet."),
        (SHAPES["unjudged"], "Nothing has been judged yet"),
        (SHAPES["one"], "Only one cell was judged: model1:1b with v1, 3.00 of 5."),
        (SHAPES["two"], "leads with 3.00 of 5, ahead of all others by more than chance."),
        (board(cell(1, 3.0), cell(2, 2.9)), "No clear winner: model1:1b with v1 leads"),
        (SHAPES["one scenario"], "fewer than two scenarios"),
        (typical(), "2 others are statistically tied with it, 8 clearly behind."),
    ],
)
def test_the_headline_is_no_surer_than_the_data(shape: Leaderboard, sentence: str) -> None:
    assert sentence in words.headline(shape)


def test_figures_are_written_without_false_certainty() -> None:
    assert [words.percent(v) for v in (None, 0.0, 0.004, 0.5, 0.996, 1.0)] == ["–", "0%", "<1%", "50%", ">99%", "100%"]
    assert [words.chance(v) for v in (None, 0.0, 0.004, 0.5, 0.996, 1.0)] == ["–", "<1%", "<1%", "50%", ">99%", ">99%"]
    assert [words.p_value(v) for v in (None, 0.0004, 0.034, 0.5)] == ["–", "<0.001", "0.034", "0.50"]
    assert [words.memory(v) for v in (None, 160 * 2**20, 3 * 2**30)] == ["–", "160 MiB", "3.0 GiB"]
    assert [words.seconds(v) for v in (None, 0.0852, 1.26)] == ["–", "85 ms", "1.3 s"]


def shown(leaderboard: Leaderboard, width: int, terminal: bool) -> str:
    file = io.StringIO()
    render(
        leaderboard,
        Console(file=file, width=width, force_terminal=terminal, soft_wrap=not terminal, highlight=False, _environ={}),
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_never_wraps_and_keeps_what_matters(name: str, width: int) -> None:
    text = shown(SHAPES[name], width, terminal=True)
    if name in ("forty", "evil"):  # such names alone are wider than the terminal
        return
    assert max(len(line) for line in text.splitlines()) <= width
    for row in SHAPES[name].cells:
        assert any(row.model in line and row.prompt in line for line in text.splitlines())


def test_a_narrow_terminal_still_shows_the_interval_the_speed_and_the_memory() -> None:
    lines = shown(typical(), 80, terminal=True).splitlines()
    (header,) = [line for line in lines if "composite" in line and "model" in line]
    assert "95% CI" in header and "tok/s" in header and "memory" in header
    assert any("3.88–4.48" in line and "93" in line and "700 MiB" in line for line in lines)


def test_a_pipe_gets_every_column_in_plain_lines() -> None:
    text = shown(typical(), 80, terminal=False)
    (header,) = [line for line in text.splitlines() if "composite" in line and "model" in line]
    for title in ("rank", "95% CI", "P(best)", "judged", "tok/s", "first token", "memory", "flags"):
        assert title in header
    rows = [line for line in text.splitlines() if re.match(r"\s*(\d+ \(|–)", line)]
    assert len(rows) == 12
    assert "tied" in rows[1] and "behind" in rows[5] and "not judged" in rows[11]
    assert "Refused: gemma3:4b has 4.30 billion" in text and "Failed: 2 scenarios" in text and "OOMKilled" in text


def test_an_error_bar_stands_where_the_interval_is() -> None:
    bar = error_bar(cell(1, 3.0, ci_low=1.0, ci_high=5.0), 1, 5)
    assert bar == "├───────●───────┤"
    assert error_bar(cell(1, 5.0, ci_low=5.0, ci_high=5.0), 1, 5).rstrip().endswith("●")
    assert error_bar(cell(1, 3.0), 1, 5, unicode=False).isascii()
    assert error_bar(cell(1, None), 1, 5).strip() == ""


@pytest.mark.parametrize("name", SHAPES)
def test_markdown_is_a_table_whatever_the_names_are(name: str) -> None:
    text = to_markdown(SHAPES[name])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert len(counts) <= 1
    assert "<script" not in text


class Page(HTMLParser):
    """What a browser would make of it: tags, and text outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.rows += tag == "tr"
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]


TIPS = [
    ReportTip("model1:1b", "v1", "one", f"{EVIL} a tip", {"tone": 4.0}, ("truncated",)),
    ReportTip("model1:1b", "v1", "two", "x", None),
]


@pytest.mark.parametrize("name", SHAPES)
def test_the_report_is_one_page_that_loads_nothing(name: str) -> None:
    text = to_html(SHAPES[name], TIPS)
    page = Page(text)
    assert "script" not in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "<script" not in text and "None" not in re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)


def test_the_report_opens_with_the_answer_and_warns_of_the_baseline() -> None:
    baseline = (JudgeSummary(name="baseline", kind="baseline", n_judged=4, mean=3.0),)
    with_baseline = to_html(board(cell(1, 3.0), judges=baseline))
    assert "come from the baseline judge" in with_baseline
    text = to_html(typical())
    assert "come from the baseline judge" not in text
    assert text.index("statistically tied") < text.index("<table")
    assert "trust the ranking less" in text and "4.30 billion" in text and "OOMKilled" in text


@pytest.mark.parametrize("name", SHAPES)
def test_figures_are_svg_with_a_mark_for_every_judged_cell(name: str) -> None:
    for plot in (
        forest_plot(SHAPES[name]),
        tradeoff_plots(SHAPES[name]),
        tradeoff_plots(SHAPES[name], narrow=True),
    ):
        if not plot:
            continue
        root = ElementTree.fromstring(plot)
        assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("aria-label")
        assert "currentColor" in plot and "#010203" not in plot


def test_of_many_cells_the_forest_plot_has_the_best_and_says_so() -> None:
    cells = tuple(cell(rank, 4.5 - rank / 100) for rank in range(1, MOST_ROWS + 51))
    few, many = forest_plot(board(*cells[:MOST_ROWS])), forest_plot(board(*cells))
    assert f"the best {MOST_ROWS} of {MOST_ROWS + 50} cells" in many and "the best" not in few
    rows = re.findall(rf"<text[^>]*>({MOST_ROWS - 1}|{MOST_ROWS}|{MOST_ROWS + 1})  ?\S+", many)
    assert rows == [str(MOST_ROWS - 1), str(MOST_ROWS)]


def test_figures_are_the_same_for_the_same_data_and_absent_without() -> None:
    assert forest_plot(typical()) == forest_plot(typical())
    assert forest_plot(SHAPES["unjudged"]) == "" == tradeoff_plots(SHAPES["no cost"])
    assert tradeoff_plots(SHAPES["unjudged"]) == ""
