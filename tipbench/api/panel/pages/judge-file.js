// Judging outside the panel: the exchange file goes out to an agent or a colleague, and comes back with scores.

import { ApiError, api } from "../api.js";
import { fill, h } from "../dom.js";
import { count } from "../format.js";
import { notice, words } from "../parts.js";

const SHOWN_FAULTS = 8;

/** A folded card with both ways; `judge` names whose open tips the file holds (nobody's: what nobody has scored). */
export function judgeFile(experiment, judge = "") {
  const result = h("div", { "aria-live": "polite" });
  const file = h("input", {
    type: "file",
    id: "scored-file",
    accept: "application/json,.json",
    on: { change: () => send(experiment, file, result) },
  });
  return h(
    "details",
    { class: "card judge-file" },
    h("summary", null, "Judge with an agent, or offline"),
    h(
      "div",
      { class: "stack" },
      h(
        "p",
        { class: "soft" },
        "The exchange file holds the rubric, the instructions and every open tip, blind. Whoever fills in the scores needs nothing else. What comes back is checked as a whole: with a single fault in it, nothing is written.",
      ),
      h(
        "div",
        null,
        h(
          "a",
          { class: "button", href: api.exchangeFile(experiment, judge), download: `${experiment}.judge.json` },
          "Download the file",
        ),
      ),
      h("div", { class: "field" }, h("label", { for: "scored-file" }, "Apply a scored file"), file),
      result,
    ),
  );
}

async function send(experiment, input, result) {
  const [chosen] = input.files;
  if (!chosen) return;
  fill(result, h("p", { class: "soft" }, `Checking ${chosen.name}…`));
  try {
    const done = await api.apply(experiment, await chosen.text());
    const open = done.pending_cells
      ? `${count(done.pending_cells, "cell")} still lack scores.`
      : "Every tip has a score now.";
    fill(
      result,
      notice(
        "good",
        h("strong", null, `${count(done.new, "new score")}, ${done.changed} changed, by ${done.judge ?? "nobody"}. `),
        open,
        " ",
        h("a", { href: `#/leaderboard/${encodeURIComponent(experiment)}` }, "See the leaderboard"),
      ),
    );
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const faults = error.errors
      .slice(0, SHOWN_FAULTS)
      .map((one) => h("li", null, h("code", null, `/${one.field}`), ` ${one.message}`));
    const more = error.errors.length - faults.length;
    fill(
      result,
      notice(
        "bad",
        h("strong", null, "Nothing was written. "),
        faults.length ? error.detail : words(error).join(". "),
        h("ul", null, faults, more > 0 && h("li", null, `and ${more} more`)),
      ),
    );
  } finally {
    input.value = ""; // the same file, mended, can be chosen again
  }
}
