// The ranking of one experiment: who leads, how sure that is, what it costs, and whether the judges can be trusted.

import { api } from "../api.js";
import { attribute, drawing, fill, h } from "../dom.js";
import { dateTime } from "../format.js";
import { crumb, empty, head, notice, tabs } from "../parts.js";
import { boardAsked, boardFor } from "../state/board.js";
import { criteria, judges } from "./judges.js";
import { rankingTable } from "./ranking.js";
import { references } from "./references.js";
import { raceCard } from "./rounds.js";

const NARROW = "(max-width: 46rem)"; // where style/screens.css begins

export async function leaderboardPage({ parts: [experiment], query, signal, go }) {
  const asked = boardAsked(query);
  const [{ board, refused }, agreement] = await Promise.all([
    boardFor(experiment, asked, signal),
    api.agreement(experiment, signal),
  ]);
  const reference = refused ? [] : asked.reference;
  const judged = board.cells.filter((cell) => cell.composite !== null);
  const content = h("div", { class: "stack" });
  fill(
    content,
    h(
      "div",
      null,
      head(experiment, { crumbs: crumb("Leaderboard"), actions: judged.length ? downloads(experiment, reference) : null }),
      tabs(experiment, "leaderboard"),
    ),
    judged.length
      ? ranking(board, judged, agreement, { experiment, signal, go, asked, reference, refused })
      : nothingJudged(board, experiment),
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

function ranking(board, judged, agreement, place) {
  const { experiment, signal, asked, reference } = place;
  return [
    answer(board, experiment),
    references(board, agreement, place),
    rankingTable(board, judged, experiment, asked),
    board.race && raceCard(board, figureOf(experiment, "race", { signal, reference }, RACE)),
    charts(experiment, { signal, reference }),
    criteria(board, judged, experiment, asked),
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

const RACE = {
  label: "Composite of every cell over the looks. The table says who left and why.",
  caption: "Each cell’s composite with its interval at every look; cells that are out have hollow marks.",
};
const TRADEOFF = {
  label: "Composite against tokens per second and against peak memory. The same figures stand in the ranking table.",
  caption:
    "Numbers are ranks. Filled marks are on the front of quality, speed and memory together: choosing another cell would give something up. The dashed line is the front of that panel alone.",
};

function charts(experiment, query) {
  const narrow = matchMedia(NARROW).matches || null;
  const figure = figureOf(experiment, "tradeoff", { ...query, narrow }, { ...TRADEOFF, titled: "tradeoff" });
  return h(
    "section",
    { class: "card", "aria-labelledby": "tradeoff" },
    h("h2", { id: "tradeoff" }, "Quality against cost"),
    figure,
  );
}

/** The API draws it with matplotlib; its place is kept until it is ready, and given up when there is nothing to draw. */
function figureOf(experiment, name, { narrow = null, ...query }, { label, caption, titled = name }) {
  const kind = narrow || matchMedia(NARROW).matches ? ` narrow ${name}` : "";
  const figure = h(
    "figure",
    { class: `figure awaited${kind}`, tabindex: 0, role: "group", "aria-labelledby": titled },
    h("p", { class: "loading" }, "Drawing…"),
  );
  const giveUp = () => (name === "race" ? figure : figure.closest("section"))?.remove();
  api.plot(experiment, name, { narrow, ...query }).then(
    (text) => {
      if (!text) return void giveUp();
      const svg = drawing(text);
      attribute(svg, "role", "img");
      attribute(svg, "aria-label", label);
      fill(figure, svg, h("figcaption", { class: "figcaption" }, caption));
      attribute(figure, "class", `figure${kind}`);
    },
    giveUp, // the tables say the same
  );
  return figure;
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

function downloads(experiment, reference) {
  const kinds = [
    ["html", "Report"],
    ["csv", "CSV"],
    ["md", "Markdown"],
    ["json", "JSON"],
  ];
  const links = kinds.map(([kind, label]) => [api.download(experiment, kind, reference), `${experiment}.${kind}`, label]);
  links.push([api.table(experiment), `${experiment}-scores.csv`, "Scores"]);
  return links.map(([href, download, label]) =>
    h("a", { class: "button compact", href, download }, h("span", { class: "hidden" }, "Download "), label),
  );
}
