// Two experiments side by side: what changed for the cells that both have.

import { api } from "../api.js";
import { h } from "../dom.js";
import { UNKNOWN, number, signed } from "../format.js";
import { cellHead, crumb, empty, head, notice, pill, scaleBar, scaleHead, table, term } from "../parts.js";

export async function comparePage({ query, signal, go }) {
  const experiments = (await api.experiments(signal)).map((one) => one.name);
  const [a, b] = [query.get("a"), query.get("b")];
  const content = h(
    "div",
    { class: "stack" },
    head("Compare two experiments", {
      crumbs: crumb("Compare"),
      lead: "The same model and prompt, before and after: another temperature, another quantisation, another rubric.",
    }),
  );
  if (experiments.length < 2) {
    content.append(
      empty(
        "list",
        "It takes two experiments",
        h("p", null, "Run a collection under another experiment name; then both can be compared here."),
        h("a", { class: "button primary", href: "#/collect" }, "Run collection"),
      ),
    );
    return { title: "Compare", content };
  }
  content.append(chooser(experiments, a, b, go));
  if (a && b && a !== b) {
    content.append(...comparison(await api.compare({ left: a, right: b }, signal)));
  } else
    content.append(notice("info", a && a === b ? "Choose two different experiments." : "Choose the two experiments."));
  return { title: a && b ? `${a} and ${b}` : "Compare", content };
}

function chooser(experiments, a, b, go) {
  const select = (id, label, chosen) =>
    h(
      "div",
      { class: "field" },
      h("label", { for: id }, label),
      h(
        "select",
        { id, on: { change } },
        h("option", { value: "" }, "Choose…"),
        experiments.map((name) => h("option", { value: name, selected: name === chosen }, name)),
      ),
    );
  const first = select("first", "First", a);
  const second = select("second", "Second", b);
  function change(event) {
    const values = [first, second].map((one) => one.querySelector("select").value);
    go(`compare?${new URLSearchParams({ a: values[0], b: values[1], at: event.target.id })}`, { replace: true });
  }
  return h("div", { class: "card fields" }, first, second);
}

function comparison({ left, right, warnings, cells, scale_min, scale_max }) {
  const both = cells.filter((cell) => cell.left && cell.right);
  const only = (side, other, name) => {
    const names = cells.filter((cell) => cell[side] && !cell[other]).map((cell) => `${cell.model} with ${cell.prompt}`);
    return names.length ? [h("p", { class: "soft small" }, `Only in ${name}: ${names.join(", ")}.`)] : [];
  };
  return [
    ...warnings.map((text) => notice("warn", text)),
    both.length
      ? pairs(both, left, right, { scale_min, scale_max })
      : empty("list", "They share no cell", h("p", null, "No model and prompt is in both experiments.")),
    ...only("left", "right", left),
    ...only("right", "left", right),
  ];
}

const VERDICTS = { better: "good", worse: "bad", "could be chance": "" };

function verdict({ verdict: said }) {
  return said in VERDICTS ? pill(VERDICTS[said], said) : h("span", { class: "soft" }, said ?? "");
}

function pairs(cells, left, right, scale) {
  const rows = cells.map((cell) =>
    h(
      "tr",
      null,
      cellHead(cell),
      h("td", { class: "wide" }, number(cell.left.composite)),
      h("td", { class: "wide" }, number(cell.right.composite)),
      h(
        "td",
        null,
        h("strong", null, signed(cell.difference)),
        cell.half_width !== null && h("span", { class: "soft small wide" }, ` ± ${number(cell.half_width)}`),
      ),
      h("td", { class: "left wide" }, scaleBar(cell.left, scale), scaleBar(cell.right, scale, "second")),
      h("td", { class: "left" }, verdict(cell)),
      h("td", { class: "wide" }, cell.seconds_ratio === null ? UNKNOWN : `× ${number(cell.seconds_ratio)}`),
    ),
  );
  return h(
    "section",
    { class: "card" },
    h("h2", { id: "pairs" }, "Cells that both have"),
    table(
      { "aria-labelledby": "pairs" },
      [
        ["left", "Model and prompt"],
        ["wide", term("First", left)],
        ["wide", term("Second", right)],
        ["", term("Change", "second minus first, paired by scenario and judge, with limits that hold for all cells at once")],
        ["left wide", scaleHead(scale, "Both composites with their intervals on the scale, the first above the second")],
        ["left", "Verdict"],
        ["wide", term("Time", "seconds per tip, second over first")],
      ],
      rows,
      "bleed",
    ),
  );
}
