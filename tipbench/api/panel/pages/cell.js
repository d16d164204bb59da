// One (model, prompt) cell: its figures, and every tip with the scores it got.

import { ApiError, api } from "../api.js";
import { h } from "../dom.js";
import { UNKNOWN, bytes, chance, count, interval, number, percent, seconds, signed } from "../format.js";
import { crumb, empty, head, notice, pill, scaleBar } from "../parts.js";
import { boardAsked, boardFor, boardPath } from "../state/board.js";

export async function cellPage({ parts: [experiment], query, signal }) {
  const [model, prompt, row] = ["model", "prompt", "row"].map((name) => query.get(name));
  const asked = boardAsked(query);
  const [{ board, refused }, { groups }] = await Promise.all([
    boardFor(experiment, asked, signal),
    api.tips(experiment, { model, prompt, row }, signal),
  ]);
  const cell = board.cells.find(
    (one) => one.model === model && one.prompt === prompt && (!row || one.row?.id === row),
  );
  if (!cell)
    throw new ApiError({
      status: 404,
      title: "There is no such cell",
      detail: `${experiment} has no cell of ${model} with ${prompt}.`,
    });
  const ranking = h("a", { href: `#/${boardPath(experiment, asked)}` }, experiment);
  const content = h(
    "div",
    { class: "stack" },
    head([h("span", { class: "tag" }, model), " with ", h("span", { class: "tag" }, prompt)], {
      crumbs: crumb(ranking, "Tips"),
      lead: cell.variant,
    }),
    cell.row?.same_tips?.length > 0 &&
      notice("warn", h("strong", null, "The same tips, letter for letter: "), cell.row.same_tips.join("; "), "."),
    refused && notice("bad", h("strong", null, "The figures are without reference judges. "), refused, "."),
    board.reference && h("p", { class: "soft" }, `Figures by reference: ${board.reference.judges.join(", ")}.`),
    figures(cell, board),
    groups.length
      ? groups.map(scenario)
      : empty(
          "list",
          "This cell has no tips",
          h(
            "p",
            null,
            cell.n_failed
              ? `Its scenarios failed: ${Object.keys(cell.failures).join(", ")}.`
              : "It has not been collected yet.",
          ),
        ),
  );
  return { title: `${model} with ${prompt}`, content };
}

function figures(cell, board) {
  const stat = (term, value, ...detail) =>
    h("div", null, h("dt", null, term), h("dd", null, value, detail.length > 0 && h("small", null, ...detail)));
  const flags = Object.entries(cell.checks).filter(([, count]) => count);
  return h(
    "dl",
    { class: "stats" },
    stat(
      "Rank",
      cell.composite === null || cell.rank === null ? UNKNOWN : String(cell.rank),
      cell.rank_low !== null
        ? `95% interval ${cell.rank_low} to ${cell.rank_high}`
        : cell.unranked || (cell.composite === null ? "not judged" : "no interval"),
    ),
    h(
      "div",
      null,
      h("dt", null, "Composite"),
      h(
        "dd",
        null,
        number(cell.composite),
        h("small", null, interval(cell.ci_low, cell.ci_high)),
        scaleBar(cell, board),
      ),
    ),
    stat(
      "To the leader",
      cell.rank === 1 ? "leads" : signed(cell.diff_to_best.value),
      cell.rank === 1
        ? ""
        : cell.tied_with_best
          ? "could be chance"
          : cell.tied_with_best === false
            ? "more than chance"
            : "",
    ),
    stat("P(best)", chance(cell.p_best)),
    board.criteria.map((name) => stat(name[0].toUpperCase() + name.slice(1), number(cell[name]))),
    stat("Judged", percent(cell.coverage), `${cell.n_judged} of ${cell.n_expected} tips`),
    stat(
      "Speed",
      cell.tokens_per_s === null ? UNKNOWN : `${number(cell.tokens_per_s, 0)} tok/s`,
      `first token ${seconds(cell.ttft_s)}, a tip ${seconds(cell.seconds_per_tip)}`,
    ),
    stat("Memory", bytes(cell.peak_memory_bytes), `at its peak${cell.memory_source ? ` (${cell.memory_source})` : ""}`),
    stat(
      "Length",
      cell.mean_words === null ? UNKNOWN : `${number(cell.mean_words, 0)} words`,
      flags.length
        ? flags.map(([name, count]) => `${count} ${name.replace(/_/g, " ")}`).join(", ")
        : "no check flagged any",
    ),
  );
}

function scenario({ scenario: name, situation, tips, failure, mlflow_url: link }) {
  return h(
    "section",
    { class: "card stack" },
    h(
      "div",
      null,
      h(
        "div",
        { class: "row between" },
        h("h2", null, name.replace(/[-_]/g, " ")),
        link && h("a", { class: "small", href: link, target: "_blank", rel: "noopener" }, "MLflow run"),
      ),
      h("p", { class: "soft small" }, situation),
    ),
    failure && notice("bad", h("strong", null, "Failed: "), failure),
    tips.length > 0 && h("ol", { class: "plain tips" }, tips.map(card)),
  );
}

function card({ text, words, done_reason: ended, scores, mean }) {
  return h(
    "li",
    { class: "tipcard" },
    h("blockquote", null, text || h("span", { class: "soft" }, "(empty)")),
    h(
      "div",
      { class: "row" },
      h("span", { class: "soft small num" }, count(words, "word")),
      ended === "length" && pill("warn", "cut off"),
    ),
    mean ? scores.map(line) : h("p", { class: "soft small" }, "Not judged yet."),
  );
}

function line({ judge, kind, scores, repeat }) {
  const values = (given) =>
    Object.entries(given).map(([name, value]) => h("span", null, `${name} `, h("b", null, String(value))));
  return [
    h("div", { class: "scores" }, h("span", null, judge, kind === "human" ? "" : ` (${kind})`), values(scores)),
    repeat && h("div", { class: "scores" }, h("span", null, `${judge}, when shown again`), values(repeat)),
  ];
}
