// What counts of an experiment: cells that stand on the board, those that do not and why, and who has judged what.

import { api } from "../api.js";
import { h } from "../dom.js";
import { count, number } from "../format.js";
import { cellHead, crumb, empty, head, notice, table, tabs, term } from "../parts.js";

const ASKED = [
  ["anyone", "anyone but the baseline"],
  ["manual", "a person or an agent"],
  ["llm", "an LLM judge"],
  ["baseline", "the baseline judge"],
];
const MEANINGS = {
  counted: "finished cells that stand on the board",
  judged: "counted cells in which who was asked has scored every tip",
  pending: "counted cells in which some tip waits for who was asked",
  failed: "cells that failed, and that no other try made good",
  superseded: "cells of another version of the model, the prompt or the scenario",
  twins: "cells that another collector filled, too",
};

export async function statusPage({ parts: [experiment], query, signal, go }) {
  const asked = query.get("for") ?? ASKED[0][0];
  const found = await api.status(experiment, asked, signal);
  const content = h(
    "div",
    { class: "stack" },
    h("div", null, head(experiment, { crumbs: crumb("Status") }), tabs(experiment, "status")),
    found.cells
      ? [tiles(found, asked, experiment, go), rows(found), judges(found), asides(found)]
      : empty(
          "list",
          "Nothing has been collected yet",
          h(
            "a",
            { class: "button primary", href: `#/collect?experiment=${encodeURIComponent(experiment)}` },
            "Run collection",
          ),
        ),
  );
  return { title: `Status of ${experiment}`, content };
}

function tiles(found, asked, experiment, go) {
  const known = ASKED.some(([name]) => name === asked) ? ASKED : [...ASKED, [asked, asked]];
  const names = found.judges.map((one) => one.name).filter((name) => !known.some(([one]) => one === name));
  const select = h(
    "select",
    {
      id: "asked",
      on: {
        change: ({ target }) => go(`status/${encodeURIComponent(experiment)}?for=${target.value}`, { replace: true }),
      },
    },
    [...known, ...new Set(names.map((name) => [name, name]))].map(([name, words]) =>
      h("option", { value: name, selected: name === asked }, words),
    ),
  );
  const stat = (name, detail = "") =>
    h(
      "div",
      { data: { count: name } },
      h("dt", null, term(sentence(name), MEANINGS[name])),
      h("dd", null, String(found[name]), detail),
    );
  const waiting =
    found.pending_candidates > 0 ? h("small", null, `${count(found.pending_candidates, "tip")} to score`) : "";
  return h(
    "div",
    { class: "stack tight" },
    h("div", { class: "field asked" }, h("label", { for: "asked" }, "Judged by"), select),
    h(
      "dl",
      { class: "stats" },
      h("div", null, h("dt", null, "Cells"), h("dd", null, String(found.cells))),
      stat("counted", h("small", null, count(found.candidates, "tip"))),
      stat("judged"),
      stat("pending", waiting),
      stat("failed"),
      stat("superseded"),
      stat("twins"),
    ),
  );
}

function rows(found) {
  const names = ["counted", "judged", "pending", "failed", "superseded", "twins"];
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "by-row" },
    h("h2", { id: "by-row" }, "By model and prompt"),
    table(
      { "aria-labelledby": "by-row" },
      [["left", "Model and prompt"], ...names.map((name) => ["", term(sentence(name), MEANINGS[name])])],
      found.rows.map((row) =>
        h(
          "tr",
          { class: row.current ? null : "old" },
          cellHead(row),
          names.map((name) => h("td", { data: { label: name } }, row[name] ? number(row[name], 0) : "–")),
        ),
      ),
      "blocks",
    ),
  );
}

function judges(found) {
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "by-judge" },
    h("h2", { id: "by-judge" }, "By judge"),
    found.judges.length
      ? table(
          { "aria-labelledby": "by-judge" },
          [
            ["left", "Judge"],
            ["", term("Cells", "counted cells in which this judge has scored every tip")],
            ["", term("Tips", "tips that this judge has scored")],
          ],
          found.judges.map((one) =>
            h(
              "tr",
              { class: one.in_force ? null : "old" },
              h(
                "th",
                { class: "left", scope: "row" },
                h(
                  "span",
                  { class: "celllink" },
                  h("span", null, one.name),
                  h("span", { class: "soft" }, [one.kind, one.version, !one.in_force && "older version"].filter(Boolean).join(" · ")),
                ),
              ),
              h("td", null, String(one.judged)),
              h("td", null, String(one.candidates)),
            ),
          ),
        )
      : h("p", { class: "soft" }, "Nobody has scored anything under this rubric."),
    found.other_rubrics.length > 0 &&
      notice(
        "info",
        `There are scores under ${count(found.other_rubrics.length, "other rubric")}, too; they do not count here: `,
        found.other_rubrics.flatMap((hash, n) => [n > 0 && ", ", h("code", null, hash.slice(0, 12))]),
        ".",
      ),
  );
}

function asides(found) {
  if (!found.twin_runs.length) return null;
  return h(
    "section",
    { class: "card stack tight" },
    h("h2", null, "Collected twice"),
    h("p", { class: "soft" }, "Two collectors filled the same cell. One run counts; the other never will, and nobody need score it."),
    h(
      "details",
      null,
      h("summary", null, count(found.twin_runs.length, "twin")),
      h(
        "ul",
        { class: "small" },
        found.twin_runs.map((one) =>
          h(
            "li",
            null,
            `${one.model} with ${one.prompt}, ${one.scenario}: `,
            h("code", null, one.run_id),
            " stands aside for ",
            h("code", null, one.counted),
          ),
        ),
      ),
    ),
  );
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1);
}
