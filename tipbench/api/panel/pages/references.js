// Whose opinion the board is: choose reference judges, see from how much of it they speak, and how far the others lean.

import { h } from "../dom.js";
import { UNKNOWN, count, interval, number, percent, signed } from "../format.js";
import { cellHead, notice, table, term } from "../parts.js";
import { boardPath } from "../state/board.js";

/** The card; `asked` are the names and versions in the address, `reference` those that the API took, `refused` why it took none. */
export function references(board, agreement, { experiment, go, asked: { reference: asked, versions }, reference, refused }) {
  const kinds = new Map(board.judges.map((judge) => [judge.name, judge.kind]));
  const names = [...new Set([...kinds.keys(), ...agreement.judges, ...asked])].filter((name) => name !== "baseline" || asked.includes(name));
  const lone = names.length < 2 && !asked.length;
  const encoded = encodeURIComponent(experiment);
  const sample = h("a", { href: `#/judge/${encoded}?scope=sample` }, "Score a sample");
  function choose() {
    const chosen = [...element.querySelectorAll("input:checked")].map((input) => input.value);
    go(boardPath(experiment, { reference: chosen, versions }), { replace: true });
  }
  const element = h(
    "section",
    { class: "card stack", "aria-labelledby": "reference" },
    h(
      "div",
      null,
      h("h2", { id: "reference" }, "Whose opinion?"),
      h(
        "p",
        { class: "soft" },
        "Choose reference judges, and the board says what they would have said of everything, from their scores on a part and the others’ on all. ",
        lone ? [sample, " yourself to have one."] : [sample, " to be one."],
      ),
    ),
    !lone &&
      h(
        "fieldset",
        null,
        h("legend", { class: "hidden" }, "Reference judges"),
        h(
          "div",
          { class: "ticks" },
          names.map((name) =>
            h(
              "label",
              { class: "tick" },
              h("input", { type: "checkbox", value: name, checked: asked.includes(name), on: { change: choose } }),
              h("span", null, name, kinds.has(name) && h("span", { class: "soft small" }, ` ${kinds.get(name)}`)),
            ),
          ),
        ),
      ),
    refused && notice("bad", h("strong", null, "The board is without reference judges. "), refused, " ", sample, "."),
    reference.length > 0 && board.reference && [figures(board.reference), biases(board)],
  );
  return element;
}

function figures(one) {
  const stat = (name, meaning, value, detail) =>
    h("div", null, h("dt", null, term(name, meaning)), h("dd", null, value, detail && h("small", null, detail)));
  const used = one.lambda > 0 && one.n_alone > 0;
  return h(
    "dl",
    { class: "stats" },
    stat("References", "whose opinion the board estimates", one.judges.join(", "), one.drawn ? "on a sample drawn at random" : "taken for representative"),
    stat("Scored by them", "of the compared cells’ tips", percent(one.share), `of the tips, in ${count(one.n_scenarios, "scenario")}`),
    stat("Others count", "λ: how far the other judges’ scores are used, from 0 to 1", `λ = ${number(one.lambda)}`, !one.n_alone ? "the references scored every scenario" : one.others.join(", ") || "nobody else scored everything"),
    stat(
      "Gain",
      "as many scenarios scored by the references alone would tell as much",
      used && one.worth !== null ? number(one.worth, 1) : UNKNOWN,
      used && one.worth !== null ? `scenarios’ worth, from ${one.n_scenarios}` : "nothing gained",
    ),
  );
}

/** Each other judge's bias: its level, and what it gives single cells beyond that. */
function biases(board) {
  const leaning = board.judges.filter((judge) => judge.bias && judge.bias.level !== null);
  if (!leaning.length) return h("p", { class: "soft small" }, "No other judge scored the same tips, so no bias can be told.");
  return leaning.map(({ name, bias }) =>
    h(
      "div",
      { class: "stack tight" },
      h(
        "h3",
        null,
        `${name}: ${signed(bias.level)} points`,
        h("span", { class: "soft small" }, bias.ci_low === null ? "" : ` (${interval(bias.ci_low, bias.ci_high)})`),
      ),
      h("p", { class: "soft small" }, "This judge minus the references on the same tips; below, what single cells get beyond that level."),
      table(
        { "aria-label": `Bias of ${name}` },
        [
          ["left", "Model and prompt"],
          ["", term("Beyond", "points more than the judge’s level")],
          ["", term("95% interval", "simultaneous over cells")],
        ],
        bias.cells.map((cell) =>
          h(
            "tr",
            null,
            cellHead(cell),
            h("td", { data: { label: "beyond" } }, signed(cell.value)),
            h("td", { data: { label: "95% interval" } }, cell.ci_low === null ? UNKNOWN : `${signed(cell.ci_low)} to ${signed(cell.ci_high)}`),
          ),
        ),
        "blocks",
      ),
    ),
  );
}
