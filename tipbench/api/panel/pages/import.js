// Outputs and scores of one's own: a CSV or JSONL table is checked as a whole, then written as a whole.

import { ApiError, api } from "../api.js";
import { fill, h } from "../dom.js";
import { count } from "../format.js";
import { crumb, field, head, notice, words } from "../parts.js";

const SHOWN_FAULTS = 12;
const COLUMNS = [
  ["model, prompt, scenario, text", "needed: one row a candidate"],
  ["situation", "what a judge reads beside the text"],
  ["index, output_tokens, output_s, peak_memory_bytes", "where known"],
  ["judge, judge_kind, and each criterion", "scores: one row a judge"],
];

export async function importPage({ query, signal }) {
  const { rubric } = await api.rubric(signal);
  const name = h("input", { id: "table-experiment", required: true, value: query.get("experiment") ?? "tip-bench-own" });
  const file = h("input", { id: "table-file", type: "file", required: true, accept: ".csv,.tsv,.txt,.jsonl,.ndjson" });
  const result = h("div", { "aria-live": "polite" });
  const buttons = [
    h("button", { type: "submit", value: "check" }, "Check only"),
    h("button", { type: "submit", value: "import", class: "primary" }, "Import"),
  ];
  const form = h(
    "form",
    { class: "card stack", on: { submit } },
    field(name, "Experiment", { hint: "An existing one, or a new name that begins with tip-bench-." }),
    field(file, "Table", { hint: "CSV (commas, semicolons or tabs) or JSONL, at most 32 MiB." }),
    h("div", { class: "row" }, buttons),
    result,
  );

  async function submit(event) {
    event.preventDefault();
    const dryRun = event.submitter?.value === "check";
    const [chosen] = file.files;
    if (!chosen) return;
    for (const button of buttons) button.disabled = true;
    fill(result, h("p", { class: "soft" }, `${dryRun ? "Checking" : "Importing"} ${chosen.name}…`));
    try {
      const jsonl = /\.(jsonl|ndjson)$/i.test(chosen.name);
      const media = jsonl ? "application/x-ndjson" : "text/csv";
      fill(result, done(await api.importTable(name.value.trim(), chosen, media, dryRun)));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fill(result, refused(error));
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  }

  return {
    title: "Import",
    content: h(
      "div",
      { class: "stack" },
      head("Import outputs and scores", {
        crumbs: crumb("Import"),
        lead: "Tips that your app wrote, or scores that somebody gave elsewhere. With a single fault in the table, nothing is written.",
      }),
      form,
      h(
        "section",
        { class: "card" },
        h("h2", null, "Columns"),
        h(
          "ul",
          null,
          COLUMNS.map(([columns, meaning]) => h("li", null, h("code", null, columns), ` ${meaning}`)),
        ),
        h("p", { class: "soft" }, `Criteria of the rubric here: ${rubric.criteria.map((one) => one.id).join(", ")}.`),
      ),
    ),
  };
}

function done(found) {
  const would = found.dry_run ? "Nothing is wrong. It would bring " : "It brought ";
  return notice(
    "good",
    h("strong", null, would),
    `${count(found.new_candidates, "new candidate")} (${found.known_candidates} were there), `,
    `${count(found.new_scores, "new score")}, ${found.changed_scores} changed. `,
    !found.dry_run && h("a", { href: `#/leaderboard/${encodeURIComponent(found.experiment)}` }, "See the leaderboard"),
  );
}

function refused(error) {
  const faults = error.errors.slice(0, SHOWN_FAULTS).map((one) => h("li", null, one.message));
  const more = error.errors.length - faults.length;
  return notice(
    "bad",
    h("strong", null, "Nothing was written. "),
    faults.length ? error.detail : words(error).join(". "),
    h("ul", null, faults, more > 0 && h("li", null, `and ${more} more`)),
  );
}
