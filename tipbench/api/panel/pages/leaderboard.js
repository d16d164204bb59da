// The ranking of one experiment: who leads, how sure that is, what it costs, and whether the judges can be trusted.

import { api } from "../api.js";
import { attribute, drawing, fill, h } from "../dom.js";
import { dateTime } from "../format.js";
import { crumb, empty, head, notice, tabs } from "../parts.js";
import { criteria, judges } from "./judges.js";
import { rankingTable } from "./ranking.js";

const NARROW = "(max-width: 46rem)"; // where style/screens.css begins

export async function leaderboardPage({ parts: [experiment], query, signal }) {
  const versions = query.get("versions") === "all" ? "all" : "current";
  const [board, agreement] = await Promise.all([
    api.leaderboard(experiment, versions === "all" ? { versions } : {}, signal),
    api.agreement(experiment, signal),
  ]);
  const judged = board.cells.filter((cell) => cell.composite !== null);
  const content = h("div", { class: "stack" });
  fill(
    content,
    h(
      "div",
      null,
      head(experiment, { crumbs: crumb("Leaderboard"), actions: judged.length ? downloads(experiment) : null }),
      tabs(experiment, "leaderboard"),
    ),
    judged.length ? ranking(board, judged, agreement, experiment, versions, signal) : nothingJudged(board, experiment),
  );
  return { title: `Leaderboard of ${experiment}`, content };
}

function nothingJudged(board, experiment) {
  if (!board.cells.length) {
    return empty(
      "list",
      "Nothing has been collected yet",
      h("p", null, "Run a collection; its tips are then judged and ranked here."),
      h(
        "a",
        { class: "button primary", href: `#/collect?experiment=${encodeURIComponent(experiment)}` },
        "Run collection",
      ),
    );
  }
  const tips = board.cells.reduce((sum, cell) => sum + cell.n_candidates, 0);
  return [
    empty(
      "person",
      "Nothing has been judged yet",
      h(
        "p",
        null,
        `${tips} tips are waiting. Score them blind, one at a time; the ranking appears with the first scores.`,
      ),
      h("a", { class: "button primary", href: `#/judge/${encodeURIComponent(experiment)}` }, "Judge the tips"),
    ),
    problems(board),
  ];
}

function ranking(board, judged, agreement, experiment, versions, signal) {
  return [
    answer(board, experiment),
    rankingTable(board, judged, experiment, versions),
    charts(experiment, signal),
    criteria(board, judged, experiment),
    judges(board, agreement, experiment),
    problems(board),
    method(board),
  ];
}

/** The API's answer in a sentence, and what to know before trusting it. */
function answer(board, experiment) {
  const baseline = board.judges.length > 0 && board.judges.every((judge) => judge.kind === "baseline");
  const judge = h("a", { href: `#/judge/${encodeURIComponent(experiment)}` }, "Judge the tips yourself");
  return h(
    "div",
    { class: "stack tight" },
    h("p", { class: "headline" }, board.headline),
    baseline &&
      notice(
        "warn",
        h("strong", null, "These scores come from the baseline judge, which counts words. "),
        "They show that the pipeline works, not which tips are good. ",
        judge,
        ".",
      ),
    board.warnings.filter((text) => !(baseline && text.includes("baseline"))).map((text) => notice("warn", text)),
  );
}

/** The API draws it with matplotlib; its place is kept until it is ready, and given up when there is nothing to draw. */
function charts(experiment, signal) {
  const figure = h(
    "figure",
    { class: "figure awaited", tabindex: 0, role: "group", "aria-labelledby": "tradeoff" },
    h("p", { class: "loading" }, "Drawing…"),
  );
  const section = h(
    "section",
    { class: "card", "aria-labelledby": "tradeoff" },
    h("h2", { id: "tradeoff" }, "Quality against cost"),
    figure,
  );
  const narrow = matchMedia(NARROW).matches;
  attribute(figure, "class", `figure awaited${narrow ? " narrow" : ""}`);
  api.plot(experiment, "tradeoff", { narrow, signal }).then(
    (text) => {
      if (!text) return void section.remove();
      const svg = drawing(text);
      attribute(svg, "role", "img");
      attribute(
        svg,
        "aria-label",
        "Composite against tokens per second and against peak memory. The same figures stand in the ranking table.",
      );
      fill(
        figure,
        svg,
        h(
          "figcaption",
          { class: "figcaption" },
          "Numbers are ranks. Filled marks are on the front of quality, speed and memory together: choosing another cell would give something up. The dashed line is the front of that panel alone.",
        ),
      );
      attribute(figure, "class", `figure${narrow ? " narrow" : ""}`);
    },
    () => section.remove(), // the table says the same
  );
  return section;
}

function problems(board) {
  const failed = board.cells.filter((cell) => cell.n_failed);
  if (!failed.length && !board.refused.length) return null;
  return h(
    "section",
    { class: "card stack tight" },
    h("h2", null, "What is missing"),
    board.refused.map((one) => notice("info", h("strong", null, "Refused by the memory policy: "), one.reason, ".")),
    failed.map((cell) =>
      notice(
        "bad",
        h("strong", null, `${cell.model} with ${cell.prompt}: `),
        `${cell.n_failed} of its scenarios failed (${Object.entries(cell.failures)
          .map(([reason, n]) => `${n} × ${reason}`)
          .join(", ")}).`,
      ),
    ),
  );
}

function method(board) {
  const entries = Object.entries(board.receipt);
  return h(
    "section",
    { class: "card stack tight" },
    h("h2", null, "Method and receipt"),
    h(
      "p",
      { class: "soft" },
      "A tip’s score is the mean over judges, a scenario’s the mean over its tips, a cell’s the mean over its scenarios. ",
      board.method,
      " Judges saw tips in shuffled order, without models or prompts.",
    ),
    h(
      "details",
      null,
      h("summary", null, `Rubric ${board.rubric_name}, versions and digests that reproduce this`),
      h(
        "dl",
        { class: "facts-list left small" },
        [
          ["compared", dateTime(board.created_at)],
          ["rubric hash", board.rubric_hash],
          ["bootstrap seed", String(board.seed)],
          ...entries,
        ].map(([key, value]) => [h("dt", null, key), h("dd", null, value)]),
      ),
    ),
  );
}

function downloads(experiment) {
  const kinds = [
    ["html", "Report"],
    ["csv", "CSV"],
    ["md", "Markdown"],
    ["json", "JSON"],
  ];
  const links = kinds.map(([kind, label]) => [api.download(experiment, kind), `${experiment}.${kind}`, label]);
  links.push([api.table(experiment), `${experiment}-scores.csv`, "Scores"]);
  return links.map(([href, download, label]) =>
    h("a", { class: "button compact", href, download }, h("span", { class: "hidden" }, "Download "), label),
  );
}
