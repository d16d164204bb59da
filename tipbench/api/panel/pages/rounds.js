// An experiment in rounds: how far the decision is, and a chain of runs shown as one.

import { h } from "../dom.js";
import { count, percent } from "../format.js";
import { cellHead, meter, notice, runPill, table } from "../parts.js";

/** How far the decision is, for whoever judges: nothing of which cell is ahead. */
export function raceLine(race) {
  if (!race) return null;
  if (race.over)
    return notice(
      "good",
      h("strong", null, "You can stop here: the decision is made. "),
      "What is left need not be scored; going on does no harm.",
    );
  return h(
    "p",
    { class: "soft small num" },
    `Round ${race.round} of at most ${race.rounds}: ${race.judged} of ${count(race.tips, "tip")} scored by anybody. `,
    "After each round it is looked whether the answer is sure.",
  );
}

/** The run of a chain that is under way, or nothing. */
export function underWay(run) {
  return run.chain_runs.find((one) => !["success", "failed", "cancelled"].includes(one.state));
}

/** The runs of a chain with links, the one in view marked, and how far the decision is; nothing for a single run. */
export function chainCard(run) {
  if (!run.race && run.chain_runs.length < 2) return null;
  const { race } = run;
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "rounds" },
    h("h2", { id: "rounds" }, "Rounds"),
    race &&
      h(
        "div",
        { class: "stack tight" },
        h(
          "p",
          null,
          race.over ? "The decision is made." : `Round ${race.round} of at most ${race.rounds}`,
          !race.over && h("span", { class: "soft" }, race.tips ? ` · ${race.judged} of ${count(race.tips, "tip")} judged` : ""),
        ),
        meter("Rounds decided", race.over ? 1 : race.looks_taken / race.rounds),
        h("p", { class: "soft small" }, `${count(race.looks_taken, "look")} taken; it stops as soon as the answer is sure.`),
      ),
    h(
      "ol",
      { class: "plain chain" },
      run.chain_runs.map((one) =>
        h(
          "li",
          null,
          one.id === run.id
            ? h("strong", { "aria-current": "step" }, `Round ${one.round}`)
            : h("a", { href: `#/run/${encodeURIComponent(one.id)}`, id: `round-${one.round}` }, `Round ${one.round}`),
          runPill(one),
        ),
      ),
    ),
  );
}

/** The race on the board: how it ended or how far it is, who left and why; `figure` is the plot's place. */
export function raceCard(board, figure) {
  const { race } = board;
  if (!race) return null;
  const out = board.cells.filter((cell) => cell.dropped_at !== null);
  const stat = (term, value, detail) => h("div", null, h("dt", null, term), h("dd", null, value, detail && h("small", null, detail)));
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "race" },
    h("h2", { id: "race" }, "The race"),
    h("p", null, `${race.reason[0].toUpperCase()}${race.reason.slice(1)}.`),
    h(
      "dl",
      { class: "stats" },
      stat("Looks", `${race.looks_taken} of ${race.looks_planned}`, "at most"),
      stat("Work", percent(race.work), "of the full design’s cells"),
      stat("In", String(board.cells.length - out.length), out.length ? `${out.length} out` : "nobody is out"),
    ),
    figure,
    out.length > 0 &&
      table(
        { "aria-label": "Cells that are out" },
        [
          ["left", "Out"],
          ["", "Look"],
          ["left", "Why"],
        ],
        out.map((cell) =>
          h(
            "tr",
            null,
            cellHead({ model: cell.model, prompt: cell.prompt }),
            h("td", { data: { label: "look" } }, String(cell.dropped_at)),
            h("td", { class: "left words", data: { label: "why" } }, cell.dropped_why),
          ),
        ),
        "blocks",
      ),
  );
}
