// The ranking table: every cell with its composite, its difference to the leader, and what it costs.

import { h } from "../dom.js";
import { UNKNOWN, bytes, chance, number, pValue, percent, signed } from "../format.js";
import { cellHead, pill, scaleBar, scaleHead, table, term } from "../parts.js";
import { boardPath, boardQuery } from "../state/board.js";

/** The cells by rank: those that the difference to the leader was tested for first, then those it was not, then the unjudged; `asked` is which board it is. */
export function rankingTable(board, judged, experiment, asked) {
  const rest = board.cells.filter((cell) => cell.composite === null);
  const tied = judged.filter((cell) => cell.rank === 1 || cell.tied_with_best);
  const behind = judged.filter((cell) => cell.rank !== 1 && cell.tied_with_best === false);
  const untested = judged.filter((cell) => cell.rank !== 1 && cell.tied_with_best === null);
  const columns = [
    ["left", term("Rank", "with its 95% interval")],
    ["left", "Model and prompt"],
    ["", term("Composite", "weighted mean of the criteria, mean over scenarios")],
    ["left", scaleHead(board, "Composite with its interval on the scale")],
    [
      "wide",
      term(
        "To the leader",
        "difference paired by scenario; p pays for the number of cells and for the leader having been chosen by looking",
      ),
    ],
    ["wide", term("P(best)", "how often the cell came first when the scenarios were drawn anew")],
    ["wide", term("Judged", "judged tips, of those the design asked for")],
    ["wide", "Tokens/s"],
    ["wide", "Memory"],
    ["wide left", term("Trade-off", "on the front: no other cell is at least as good in quality, speed and memory")],
  ];
  const group = (text, cells, kind) =>
    cells.length
      ? [
          h("tr", { class: `group ${kind}` }, h("th", { colspan: columns.length, scope: "rowgroup" }, text)),
          cells.map((cell) => row(cell, board, experiment, asked, kind)),
        ]
      : [];
  return h(
    "section",
    { class: "card", "aria-labelledby": "ranking" },
    h("h2", { id: "ranking" }, "Ranking"),
    table(
      { "aria-labelledby": "ranking" },
      columns,
      [
        group(tied.length > 1 ? "Tied for first: the differences could be chance" : "First", tied, "lead"),
        group("Behind by more than chance", behind, "behind"),
        group("Judged, but not tested against the leader", untested, "untested"),
        group(rest.some((cell) => cell.unranked) ? "Not ranked" : "Not judged", rest, "rest"),
      ],
      "bleed",
    ),
    h(
      "p",
      { class: "small under" },
      asked.versions === "all"
        ? h("a", { href: `#/${boardPath(experiment, { ...asked, versions: "current" })}` }, "Only what counts now")
        : h(
            "a",
            { href: `#/${boardPath(experiment, { ...asked, versions: "all" })}` },
            "Older versions of models, prompts and scenarios, too",
          ),
    ),
  );
}

function row(cell, board, experiment, asked, kind) {
  return h(
    "tr",
    { class: [kind === "lead" && "tied", cell.row?.current === false && "old"].filter(Boolean).join(" ") || null },
    h(
      "td",
      { class: "rank" },
      cell.composite === null
        ? UNKNOWN
        : [
            h("b", null, cell.rank === null ? UNKNOWN : String(cell.rank)),
            " ",
            cell.rank_low !== null && h("span", { class: "soft small" }, `${cell.rank_low}–${cell.rank_high}`),
          ],
    ),
    cellHead(cell, experiment, boardQuery(asked)),
    h("td", null, h("strong", null, number(cell.composite))),
    h("td", { class: cell.unranked ? "left words" : "left" }, cell.unranked ? h("span", { class: "soft small" }, cell.unranked) : scaleBar(cell, board)),
    h(
      "td",
      { class: "wide" },
      cell.rank === 1
        ? h("span", { class: "soft" }, "leader")
        : [
            signed(cell.diff_to_best.value),
            h("span", { class: "soft small" }, ` ${pValue(cell.diff_to_best.p_adjusted)}`),
          ],
    ),
    h("td", { class: "wide" }, chance(cell.p_best)),
    h(
      "td",
      { class: "wide" },
      percent(cell.coverage),
      cell.n_failed ? h("span", { class: "error" }, ` ${cell.n_failed} failed`) : null,
    ),
    h("td", { class: "wide" }, number(cell.tokens_per_s, 0)),
    h(
      "td",
      { class: "wide", title: cell.memory_source ?? "" },
      bytes(cell.peak_memory_bytes),
      cell.memory_source === "reported" ? h("span", { class: "soft small" }, " reported") : null,
    ),
    h(
      "td",
      { class: "wide left" },
      cell.pareto
        ? pill("good bare", "on the front")
        : h("span", { class: "soft" }, cell.pareto === null ? UNKNOWN : "beaten"),
    ),
  );
}
