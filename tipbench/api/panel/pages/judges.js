// Whether the judges can be trusted, and what they gave criterion by criterion.

import { h } from "../dom.js";
import { interval, number, percent, signed } from "../format.js";
import { cellHead, notice, pill, table, term } from "../parts.js";
import { boardQuery } from "../state/board.js";

export function judges(board, agreement, experiment) {
  const weak = agreement.alpha.filter((one) => one.weak);
  const steady = Object.fromEntries(agreement.consistency.map((one) => [one.judge, one.exact]));
  const lenient = Object.fromEntries(agreement.leniency.map((one) => [one.judge, one.mean_difference]));
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "judges" },
    h("h2", { id: "judges" }, "Can the judges be trusted?"),
    weak.length > 0 &&
      notice(
        "warn",
        h("strong", null, "The judges agree weakly"),
        ` on ${weak.map((one) => one.criterion).join(", ")}. Trust the ranking less, and see which anchors they read differently.`,
      ),
    table(
      { "aria-label": "Judges" },
      [
        ["left", "Judge"],
        ["", "Tips"],
        ["", "Mean"],
        ["", term("Lenient", "mean difference to the other judges on the same tips")],
        ["", term("Steady", "share of scores given alike when the same tip came twice")],
      ],
      board.judges.map((judge) =>
        h(
          "tr",
          null,
          h(
            "th",
            { class: "left", scope: "row" },
            h("span", { class: "celllink" }, h("span", null, judge.name), h("span", { class: "soft" }, judge.kind)),
          ),
          h("td", null, String(judge.n_judged)),
          h("td", null, number(judge.mean)),
          h("td", null, signed(lenient[judge.name])),
          h("td", null, percent(steady[judge.name] ?? judge.self_consistency)),
        ),
      ),
    ),
    agreement.alpha.length
      ? h(
          "dl",
          { class: "facts-list" },
          agreement.alpha.map((one) => [
            h("dt", null, `Agreement on ${one.criterion}`),
            h(
              "dd",
              null,
              number(one.alpha),
              h("span", { class: "soft small" }, one.ci_low === null ? "" : ` (${interval(one.ci_low, one.ci_high)})`),
              " ",
              one.weak ? pill("warn", "weak") : one.alpha === null ? "" : pill("good", "fair"),
            ),
          ]),
        )
      : h(
          "p",
          { class: "soft small" },
          "Agreement needs a second judge. ",
          h("a", { href: `#/judge/${encodeURIComponent(experiment)}` }, "Judge the same tips under another name"),
          ".",
        ),
    agreement.alpha.length > 0 &&
      h(
        "p",
        { class: "soft small" },
        "Krippendorff’s ordinal alpha: 1 is agreement, 0 is chance, below 0.667 is weak.",
      ),
  );
}

export function criteria(board, judged, experiment, asked) {
  const flagged = "tips that are empty, refuse, leak the prompt, repeat, run too long or were cut off";
  const figure = (label, value) => h("td", { data: { label } }, value);
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "criteria" },
    h("h2", { id: "criteria" }, "Criteria, one by one"),
    table(
      { "aria-labelledby": "criteria" },
      [
        ["left", "Model and prompt"],
        ...board.criteria.map((name) => [
          "",
          [name, h("br"), h("span", { class: "soft" }, percent(board.weights[name]))],
        ]),
        ["", "Words"],
        ["", term("Flagged", flagged)],
      ],
      judged.map((cell) =>
        h(
          "tr",
          null,
          cellHead(cell, experiment, boardQuery(asked)),
          board.criteria.map((name) => figure(name, number(cell[name]))),
          figure("words", number(cell.mean_words, 0)),
          figure("flagged", String(Object.values(cell.checks).reduce((a, b) => a + b, 0))),
        ),
      ),
      "blocks",
    ),
  );
}
