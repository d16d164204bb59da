// Pieces of the collection form: inputs by their rules, a model with its needs, how much it will be, and what a start would lack.

import { fill, h } from "../dom.js";
import { bytes, count, duration, parameters } from "../format.js";
import { meter, notice } from "../parts.js";

/** An input or a list for one key, by its rules. */
export function control(name, rules, value, more) {
  if (rules.enum)
    return h(
      "select",
      { name },
      rules.enum.map((one) => h("option", { value: one, selected: one === value }, one)),
    );
  if (rules.type === "boolean")
    return h(
      "select",
      { name },
      h("option", { value: "false" }, "no"),
      h("option", { value: "true", selected: value === true }, "yes"),
    );
  if (rules.type === "string")
    return h("input", { type: "text", name, value: value ?? "", spellcheck: "false", autocomplete: "off" });
  return h("input", {
    type: "number",
    inputmode: rules.type === "integer" ? "numeric" : "decimal",
    name,
    value: value ?? "",
    min: rules.minimum,
    max: rules.maximum,
    step: rules.type === "integer" ? 1 : "any",
    ...more,
  });
}

/** How much it will be, and how long it will take. */
export function summary({ cells, tips, seconds, complete, models }, config, allScenarios) {
  const scenarios = config.n_scenarios || allScenarios;
  const prompts = config.prompts.split(",").length;
  const time =
    seconds === null
      ? "Unknown: none of these models has been measured here yet."
      : complete
        ? "from the pace of earlier runs"
        : "for the models measured before; the others come on top";
  return [
    h(
      "div",
      null,
      h("p", { class: "big" }, count(tips, "tip")),
      h(
        "p",
        { class: "soft small" },
        `${count(models.length, "model")} × ${count(prompts, "prompt")} × ${count(scenarios, "scenario")}`,
        ` = ${count(cells, "cell")}, ${count(config.n_tips, "tip")} each`,
      ),
    ),
    h(
      "dl",
      { class: "facts-list" },
      h("dt", null, "Will take"),
      h("dd", null, seconds === null ? "?" : `${complete ? "about" : "at least"} ${duration(seconds)}`),
      models
        .filter((one) => one.seconds !== null && models.length > 1)
        .map((one) => [h("dt", { class: "tag" }, one.model), h("dd", null, duration(one.seconds))]),
    ),
    h("p", { class: "soft small" }, time),
  ];
}

export function groupError(set, name) {
  const error = h("p", { class: "error", id: `${name}-error` });
  set.append(error);
  set.say = (text) => fill(error, text ?? "");
  return set;
}

export function choice(props, title, facts, detail) {
  return h(
    "label",
    { class: "choice" },
    h("input", props),
    h("span", { class: "title" }, title),
    h("span", { class: "facts" }, facts),
    detail && h("span", { class: "detail" }, detail),
  );
}

export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

/** A model to tick: what it is, what it needs in memory, or why the policy refuses it. */
export function modelChoice(row, chosen, limit) {
  const facts = [row.parameters && parameters(row.parameters), row.quantization].filter(Boolean).join(" · ");
  const needs = row.estimated_memory_bytes;
  const memory = needs && [
    `Needs about ${bytes(needs)}${limit ? ` of ${bytes(limit)}` : ""}`,
    limit && meter(`Memory of ${row.model}`, Math.min(1, needs / limit)),
    limit && row.max_num_ctx && h("span", { class: "soft" }, `Fits with a context of up to ${row.max_num_ctx} tokens`),
  ];
  const refusal = [
    sentence(row.verdict),
    row.allowed ? "" : ".",
    limit && row.max_num_ctx ? ` It fits with a context of up to ${row.max_num_ctx} tokens.` : "",
  ];
  const said = row.verdict === "allowed" ? memory : refusal;
  const props = {
    type: "checkbox",
    name: "models",
    value: row.model,
    checked: row.allowed && chosen,
    disabled: !row.allowed,
  };
  const element = choice(props, h("span", { class: "tag" }, row.model), facts, said);
  if (!row.allowed) element.classList.add("refused");
  return element;
}

/** A prompt to tick: what it is, or what is wrong with its file. */
export function promptChoice(prompt, chosen) {
  const props = {
    type: "checkbox",
    name: "prompts",
    value: prompt.name,
    checked: chosen,
    disabled: Boolean(prompt.problem),
  };
  const element = choice(props, h("span", { class: "tag" }, prompt.name), "", prompt.problem || prompt.description);
  if (prompt.problem) element.classList.add("refused");
  return element;
}

/** What a start would pull, what it would lack, or why it would collect nothing. */
export function consequences({ obstacle, missing, pulls, wanted, rows, values, schema }) {
  const names = missing.flatMap((model, n) => [n > 0 && ", ", h("span", { class: "tag" }, model)]);
  const several = missing.length > 1;
  const without = wanted.length > missing.length ? " The run goes on without." : "";
  const setting = "pull" in schema ? "set “Pull missing models” under More settings, or run " : "run ";
  const remedy = values.engine !== "embedded" && [
    ` To have ${several ? "them" : "it"}: `,
    setting,
    h("code", null, `ollama pull ${missing[0]}`),
    ".",
  ];
  return [
    missing.length > 0 &&
      (pulls
        ? notice("info", h("strong", null, "Will be pulled first: "), names, ". That needs the network and disk space.")
        : notice("warn", names, h("strong", null, ` ${several ? "are" : "is"} not there.`), without, remedy)),
    rows !== null && obstacle && h("p", { class: "error" }, obstacle),
  ];
}
