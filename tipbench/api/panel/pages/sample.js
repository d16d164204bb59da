// A sample for people: drawn at random, scored by keyboard, so that the board can say what they would have said of everything.

import { ApiError, api } from "../api.js";
import { attribute, fill, h } from "../dom.js";
import { count } from "../format.js";
import { field, notice, words } from "../parts.js";
import { boardPath } from "../state/board.js";
import { Turns } from "../state/form.js";

const USUAL = { scenarios: 8, tips: 2 };
const WAIT_MS = 350;

/** The sample that was asked for with what this judge has left of it, else a form that draws one. `offer` is the API's answer. */
export function sampleOffer(experiment, judge, offer, { scope, signal, go }) {
  const asked = offer.sample;
  const inner = asked ? existing(experiment, judge, asked) : drawing(experiment, offer, { scope, signal, go });
  const title = "Score a sample";
  if (scope === "sample") return h("section", { class: "card stack" }, h("h2", null, title), inner);
  const toggle = ({ target }) => target.open && inner.shown?.();
  return h("details", { class: "card", open: Boolean(asked && judge && asked.left[judge] !== 0), on: { toggle } }, h("summary", null, title), h("div", { class: "stack" }, inner));
}

function existing(experiment, judge, asked) {
  const left = judge ? (asked.left[judge] ?? asked.n_tips) : asked.n_tips;
  const others = Object.entries(asked.left).filter(([name, n]) => name !== judge && n === 0);
  return [
    h(
      "p",
      { class: "soft" },
      `${count(asked.scenarios, "scenario")}, drawn at random, ${asked.tips ? `${count(asked.tips, "tip")} of each cell` : "all tips of each cell"}: ${count(asked.n_tips, "tip")}. `,
      judge && (left ? `${left === asked.n_tips ? "You have not begun." : `You have ${left} left.`} ` : "You have scored all of it. "),
      others.length > 0 && `Scored whole by ${others.map(([name]) => name).join(", ")}.`,
    ),
    h(
      "div",
      { class: "row" },
      left > 0 && h("a", { class: "button primary", href: `#/judge/${encodeURIComponent(experiment)}?scope=sample` }, "Score the sample"),
      left === 0 &&
        h(
          "a",
          { class: "button", href: `#/${boardPath(experiment, { reference: [judge] })}` },
          "See your leaderboard",
        ),
    ),
  ];
}

function drawing(experiment, { n_scenarios: there, least }, { scope, signal, go }) {
  const why = h(
    "p",
    { class: "soft" },
    "Let an LLM or an agent score everything, and score a part yourself: the board then says what ",
    h("em", null, "you"),
    " would have said of everything, with the other judge’s bias taken out.",
  );
  if (there < least)
    return [why, notice("info", `A sample takes ${least} scenarios at least; this experiment has ${there}.`)];
  const number = (name, value, low, high) =>
    h("input", { type: "number", inputmode: "numeric", name, id: `sample-${name}`, value, min: low, max: high, step: 1, "data-first": scope === "sample" && name === "scenarios" });
  const scenarios = number("scenarios", Math.min(USUAL.scenarios, there), least, Math.min(there, 400));
  const tips = number("tips", USUAL.tips, 0, 200);
  const fields = {
    scenarios: field(scenarios, "Scenarios", { hint: `${least} to ${Math.min(there, 400)}; more make the board surer.` }),
    tips: field(tips, "Tips of each cell", { hint: "0 takes all. Scenarios tell more than tips." }),
  };
  const button = h("button", { class: "button primary", type: "submit" }, "Draw the sample");
  const problem = h("div", { "aria-live": "polite" });
  const expected = detectable(experiment, { scenarios, tips }, signal);
  async function submit(event) {
    event.preventDefault();
    attribute(button, "disabled", true);
    fill(problem);
    try {
      await api.drawSample(experiment, { scenarios: Number(scenarios.value), tips: Number(tips.value) });
      const place = `judge/${encodeURIComponent(experiment)}?scope=sample`;
      return go(place, { replace: scope === "sample" });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const said = new Map(error.errors.map((one) => [one.field, one.message]));
      for (const [name, one] of Object.entries(fields)) one.say(said.get(name) ?? "");
      if (![...said.keys()].some((name) => name in fields)) fill(problem, notice("bad", words(error).join(". ")));
      return undefined;
    } finally {
      attribute(button, "disabled", null);
    }
  }
  const form = h(
    "form",
    { class: "stack", novalidate: true, on: { submit, input: expected.later } },
    why,
    h("div", { class: "fields" }, Object.values(fields)),
    expected.element,
    problem,
    h("div", null, button),
  );
  if (scope === "sample") expected.now();
  form.shown = expected.now;
  return form;
}

/** What scores of such a sample would tell, in the API's words: asked for now, or later when more may be typed. */
function detectable(experiment, { scenarios, tips }, signal) {
  const element = h("div", { class: "detectable", "aria-live": "polite" });
  const turns = new Turns();
  let timer = null;
  async function now() {
    const isLatest = turns.latest();
    if (!scenarios.value || !tips.value) return void fill(element);
    try {
      const found = await api.planSample(experiment, { scenarios: scenarios.value, tips: tips.value }, signal);
      if (isLatest()) fill(element, answer(found));
    } catch (error) {
      if (signal.aborted) return;
      // What is at fault is said when the sample is drawn.
      if (!(error instanceof ApiError)) throw error;
      if (isLatest()) fill(element);
    }
  }
  function later() {
    clearTimeout(timer);
    timer = setTimeout(now, WAIT_MS);
  }
  signal.addEventListener("abort", () => clearTimeout(timer));
  return { element, now, later };
}

function answer(found) {
  return [
    h("p", null, h("strong", null, `${count(found.n_tips, "tip")} to score. `), found.words),
    h(
      "p",
      { class: "soft small" },
      `${count(found.n_cells, "cell")}, ${found.scenarios} of ${count(found.n_scenarios, "scenario")}; spreads of scores ${found.spreads}.`,
    ),
  ];
}
