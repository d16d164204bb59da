// The form that starts a collection: fields, defaults and limits come from the API's schema; the API alone validates.

import { ApiError, api } from "../api.js";
import { announce, attribute, fill, h } from "../dom.js";
import { bytes, count, duration, parameters } from "../format.js";
import { crumb, field, head, meter, notice, words } from "../parts.js";

const WAIT_MS = 350;
const MAIN_KEYS = new Set([
  "experiment",
  "models",
  "prompts",
  "n_scenarios",
  "n_tips",
  "temperature",
  "judge",
  "judge_model",
  "judge_timeout_hours",
]);
const AFFECT_MODELS = new Set(["max_model_b", "num_ctx", "memory_limit", "parallel", "engine", "ollama_url"]);
const JUDGES = {
  manual: ["People or agents", "You score in this panel, or an agent does over the API. The run waits."],
  llm: ["A language model", "Another model scores every tip against the rubric."],
  baseline: ["Baseline", "Counts words: shows that the pipeline works, not which tips are good."],
  skip: ["Nobody yet", "Collect only; judge whenever you like."],
};
const LABELS = {
  max_model_b: "Largest model, in billions",
  ollama_url: "Ollama address",
  mlflow_url: "MLflow address",
  num_predict: "Most tokens in a tip",
  num_ctx: "Context length",
  num_thread: "Threads",
  parallel: "Requests at once",
  keep_alive: "Keep a model loaded",
  memory_limit: "Memory limit",
  pull: "Pull missing models",
};

export async function collectPage({ query, signal, go }) {
  const again = query.get("again");
  const [form, known, earlier] = await Promise.all([
    api.form(signal),
    api.experiments(signal).catch(() => []),
    again ? api.dagRun(again, signal).catch(() => null) : null,
  ]);
  const view = new CollectForm(form, {
    signal,
    go,
    known,
    wanted: earlier?.config ?? {},
    experiment: query.get("experiment"),
  });
  return { title: "Run collection", content: view.content };
}

class CollectForm {
  constructor(form, { signal, go, known, wanted, experiment }) {
    // A key without a default means nothing where this API runs.
    this.schema = Object.fromEntries(Object.entries(form.schema.properties).filter(([name]) => name in form.defaults));
    this.defaults = { ...form.defaults };
    this.values = { ...form.defaults, ...wanted };
    if (experiment) this.values.experiment = experiment;
    this.form = form;
    this.signal = signal;
    this.go = go;
    this.fields = {}; // key -> an element with say(text)
    this.touched = new Set();
    this.extra = []; // model tags that were typed in
    this.asked = { models: 0, estimate: 0 }; // of several questions under way, the answer to the last one counts
    this.renew();

    this.problems = h("div", { class: "stack tight", tabindex: -1 });
    this.summary = h("div", { class: "stack tight" });
    this.modelList = h("div", { class: "choices" });
    this.button = h("button", { class: "button primary", type: "submit" }, "Start collection");
    const body = h(
      "form",
      {
        class: "two aside",
        novalidate: true,
        on: {
          submit: (event) => this.submit(event),
          input: (event) => this.changed(event),
          change: (event) => this.changed(event),
        },
      },
      h(
        "div",
        { class: "stack" },
        this.problems,
        this.where(known),
        this.models(),
        this.prompts(),
        this.size(),
        this.judge(),
        this.advanced(),
      ),
      h(
        "aside",
        { class: "card stack sticky", "aria-label": "What will run" },
        h("h2", null, "What will run"),
        this.summary,
        this.button,
      ),
    );
    this.content = h(
      "div",
      null,
      head("Run collection", {
        crumbs: crumb("Run collection"),
        lead: "Every model writes tips with every prompt for the same scenarios. Cells that are finished already are not collected again.",
      }),
      body,
    );
    signal.addEventListener("abort", () => [clearTimeout(this.timer), clearTimeout(this.modelTimer)]);
    this.loadModels();
    this.estimate();
  }

  /** A double click or a retry repeats this key, so that it starts one run; another configuration gets another key. */
  renew() {
    this.key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
      byte.toString(16).padStart(2, "0"),
    ).join("");
  }

  // -- sections ----------------------------------------------------------------------------------

  where(known) {
    const input = h("input", {
      type: "text",
      name: "experiment",
      value: this.values.experiment,
      list: "known-experiments",
      spellcheck: "false",
      autocomplete: "off",
    });
    this.fields.experiment = field(input, "Experiment", {
      hint: "A new name starts a new ranking; a known one adds to it. Names start with tip-bench-.",
    });
    return h(
      "section",
      { class: "card" },
      this.fields.experiment,
      h(
        "datalist",
        { id: "known-experiments" },
        known.map((one) => h("option", { value: one.name })),
      ),
    );
  }

  models() {
    this.chosen = new Set(split(this.values.models));
    const input = h("input", {
      type: "text",
      id: "add-model",
      spellcheck: "false",
      autocomplete: "off",
      placeholder: "e.g. qwen2.5:0.5b",
      on: { keydown: (event) => event.key === "Enter" && (event.preventDefault(), this.addModel(input)) },
    });
    const set = h(
      "fieldset",
      { class: "card", "aria-describedby": "models-error" },
      h("legend", null, "Models"),
      h("p", { class: "hint" }, "What the engine has, what each needs in memory, and what the memory policy says."),
      this.modelList,
      h(
        "div",
        { class: "field push-top" },
        h("label", { for: "add-model" }, "Add a model by its tag"),
        h(
          "div",
          { class: "inline" },
          input,
          h("button", { class: "button", type: "button", on: { click: () => this.addModel(input) } }, "Add"),
        ),
      ),
    );
    this.fields.models = this.groupError(set, "models");
    return set;
  }

  prompts() {
    const chosen = new Set(split(this.values.prompts));
    const set = h(
      "fieldset",
      { class: "card", "aria-describedby": "prompts-error" },
      h("legend", null, "Prompts"),
      h(
        "div",
        { class: "choices" },
        this.form.prompts.map((prompt) =>
          choice(
            { type: "checkbox", name: "prompts", value: prompt.name, checked: chosen.has(prompt.name) },
            h("span", { class: "tag" }, prompt.name),
            "",
            prompt.description,
          ),
        ),
      ),
    );
    this.fields.prompts = this.groupError(set, "prompts");
    return set;
  }

  size() {
    const total = this.form.scenarios.length;
    const scenarios = field(
      h(
        "select",
        { name: "n_scenarios" },
        h("option", { value: "0" }, `All ${total}`),
        Array.from({ length: total - 1 }, (_, i) =>
          h(
            "option",
            { value: String(total - 1 - i), selected: this.values.n_scenarios === total - 1 - i },
            total - 1 - i === 1 ? "Only the first" : `The first ${total - 1 - i}`,
          ),
        ),
      ),
      "Scenarios",
      { hint: "Scenarios, not tips, make a ranking sure." },
    );
    this.fields.n_scenarios = scenarios;
    return h(
      "fieldset",
      { class: "card" },
      h("legend", { class: "hidden" }, "Size"),
      h(
        "div",
        { class: "fields" },
        scenarios,
        this.input("n_tips", "Tips per scenario"),
        this.input("temperature", "Temperature", { step: "0.1" }),
      ),
    );
  }

  judge() {
    const modes = this.schema.judge.enum;
    const model = this.input("judge_model", "Judge’s model");
    const timeout = this.input("judge_timeout_hours", "Wait at most, in hours", { step: "any" });
    this.judgeDetails = { manual: timeout, llm: model };
    const set = h(
      "fieldset",
      { class: "card", "aria-describedby": "judge-error" },
      h("legend", null, "Who judges?"),
      h(
        "div",
        { class: "choices grid" },
        modes.map((mode) =>
          choice(
            { type: "radio", name: "judge", value: mode, checked: this.values.judge === mode },
            JUDGES[mode]?.[0] ?? mode,
            "",
            JUDGES[mode]?.[1],
          ),
        ),
      ),
      h("div", { class: "push-top" }, model, timeout),
    );
    this.fields.judge = this.groupError(set, "judge");
    this.showJudge(this.values.judge);
    return set;
  }

  advanced() {
    const names = Object.keys(this.schema).filter((name) => !MAIN_KEYS.has(name));
    const changed = names.some((name) => this.values[name] !== this.defaults[name]);
    this.more = h(
      "details",
      { class: "card", open: changed },
      h("summary", null, "More settings"),
      h(
        "div",
        { class: "fields" },
        names.map((name) => this.input(name)),
      ),
    );
    return this.more;
  }

  /** A field for a key, made from its schema. */
  input(name, label, more = {}) {
    const rules = this.schema[name];
    const value = this.values[name];
    let control;
    if (rules.enum)
      control = h(
        "select",
        { name },
        rules.enum.map((one) => h("option", { value: one, selected: one === value }, one)),
      );
    else if (rules.type === "boolean")
      control = h(
        "select",
        { name },
        h("option", { value: "false" }, "no"),
        h("option", { value: "true", selected: value === true }, "yes"),
      );
    else if (rules.type === "string")
      control = h("input", { type: "text", name, value: value ?? "", spellcheck: "false", autocomplete: "off" });
    else
      control = h("input", {
        type: "number",
        inputmode: rules.type === "integer" ? "numeric" : "decimal",
        name,
        value: value ?? "",
        min: rules.minimum,
        max: rules.maximum,
        step: rules.type === "integer" ? 1 : "any",
        ...more,
      });
    this.fields[name] = field(control, label ?? LABELS[name] ?? sentence(name.replace(/_/g, " ")), {
      hint: rules.description,
    });
    return this.fields[name];
  }

  groupError(set, name) {
    const error = h("p", { class: "error", id: `${name}-error` });
    set.append(error);
    set.say = (text) => fill(error, text ?? "");
    return set;
  }

  // -- models ------------------------------------------------------------------------------------

  async loadModels() {
    const turn = ++this.asked.models;
    const config = this.config();
    const query = Object.fromEntries(
      [...AFFECT_MODELS]
        .filter((name) => config[name] !== undefined && config[name] !== "")
        .map((name) => [name, config[name]]),
    );
    if (!this.rows) fill(this.modelList, h("p", { class: "soft" }, "Asking the engine…"));
    try {
      const answer = await api.models(
        { models: [...new Set([...split(this.defaults.models), ...this.chosen, ...this.extra])].join(","), ...query },
        this.signal,
      );
      if (turn === this.asked.models) this.drawModels(answer);
    } catch (error) {
      if (this.signal.aborted || turn !== this.asked.models || !(error instanceof ApiError)) return;
      // A setting that is at fault is shown at its own field by the estimate.
      if (error.status !== 422)
        fill(this.modelList, notice("bad", h("strong", null, `${words(error)[0]}. `), words(error)[1]));
    }
  }

  drawModels({ models, available, problem, memory_limit_bytes: limit }) {
    this.rows = models;
    const order = (row) => (row.allowed ? (row.installed ? 0 : 1) : 2);
    fill(
      this.modelList,
      !available &&
        notice("warn", problem ?? "The engine cannot be reached; what follows is known from the tags alone."),
      !models.length && h("p", { class: "soft" }, "The engine has no models yet. Add one by its tag below."),
      [...models].sort((a, b) => order(a) - order(b)).map((row) => this.modelChoice(row, limit)),
    );
  }

  modelChoice(row, limit) {
    const facts = [row.parameters && parameters(row.parameters), row.quantization].filter(Boolean).join(" · ");
    const needs = row.estimated_memory_bytes;
    const memory = needs && [
      `Needs about ${bytes(needs)}${limit ? ` of ${bytes(limit)}` : ""}`,
      limit && meter(`Memory of ${row.model}`, Math.min(1, needs / limit)),
    ];
    const said = row.verdict === "allowed" ? memory : [sentence(row.verdict), row.allowed ? "" : "."];
    const element = choice(
      {
        type: "checkbox",
        name: "models",
        value: row.model,
        checked: row.allowed && this.chosen.has(row.model),
        disabled: !row.allowed,
      },
      h("span", { class: "tag" }, row.model),
      facts,
      said,
    );
    if (!row.allowed) element.classList.add("refused");
    return element;
  }

  addModel(input) {
    const tags = split(input.value);
    if (!tags.length) return input.focus();
    this.extra.push(...tags);
    tags.forEach((tag) => this.chosen.add(tag));
    input.value = "";
    announce(`${tags.join(", ")} added`);
    this.renew();
    this.loadModels().then(() => this.estimate());
    return input.focus();
  }

  // -- what is in the form -----------------------------------------------------------------------

  config() {
    const config = {};
    if (!this.content) return { ...this.values };
    for (const [name, rules] of Object.entries(this.schema)) {
      if (name === "models" || name === "prompts") continue;
      const control = this.content.querySelector(name === "judge" ? "[name=judge]:checked" : `[name="${name}"]`);
      if (!control) continue;
      const value = typed(control.value, rules);
      // What was not changed is left to the server, whose defaults may change.
      if (MAIN_KEYS.has(name) || value !== this.defaults[name]) config[name] = value;
    }
    if (!config.judge_model) delete config.judge_model;
    if (config.judge !== "manual") delete config.judge_timeout_hours;
    config.prompts = this.checked("prompts").join(",");
    const allowed = new Set((this.rows ?? []).filter((row) => !row.allowed).map((row) => row.model));
    config.models = (this.rows ? this.checked("models") : [...this.chosen])
      .filter((model) => !allowed.has(model))
      .join(",");
    return config;
  }

  checked(name) {
    return [...this.content.querySelectorAll(`[name="${name}"]:checked`)].map((box) => box.value);
  }

  changed({ target }) {
    if (!target.name) return;
    this.touched.add(target.name);
    this.renew();
    if (target.name === "models") {
      if (target.checked) this.chosen.add(target.value);
      else this.chosen.delete(target.value);
    }
    if (target.name === "judge") this.showJudge(target.value);
    if (AFFECT_MODELS.has(target.name)) {
      clearTimeout(this.modelTimer);
      this.modelTimer = setTimeout(() => this.loadModels(), WAIT_MS);
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.estimate(), WAIT_MS);
  }

  showJudge(mode) {
    for (const [name, element] of Object.entries(this.judgeDetails)) element.hidden = name !== mode;
  }

  // -- estimate and start ------------------------------------------------------------------------

  async estimate() {
    const turn = ++this.asked.estimate;
    const config = this.config();
    try {
      const found = await api.estimate(config, this.signal);
      if (turn !== this.asked.estimate) return;
      this.say([], this.touched);
      this.drawSummary(found, config);
    } catch (error) {
      if (this.signal.aborted || turn !== this.asked.estimate || !(error instanceof ApiError)) return;
      if (error.status === 422) {
        this.say(error.errors, this.touched);
        fill(this.summary, h("p", { class: "soft" }, "Some fields need another value first."));
      } else fill(this.summary, notice("warn", words(error).join(". ")));
    }
  }

  drawSummary({ cells, tips, seconds, complete, models }, config) {
    const scenarios = config.n_scenarios || this.form.scenarios.length;
    const time =
      seconds === null
        ? "Unknown: none of these models has been measured here yet."
        : complete
          ? "from the pace of earlier runs"
          : "for the models measured before; the others come on top";
    fill(
      this.summary,
      h(
        "div",
        null,
        h("p", { class: "big" }, count(tips, "tip")),
        h(
          "p",
          { class: "soft small" },
          `${count(models.length, "model")} × ${count(split(config.prompts).length, "prompt")} × ${count(scenarios, "scenario")}`,
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
    );
  }

  /** Show each fault at its field; `only` limits that to the fields that were touched. Returns what fits no field. */
  say(errors, only) {
    const said = new Map(errors.map((one) => [one.field.split("/")[0], one.message]));
    for (const [name, element] of Object.entries(this.fields)) {
      if (!only || only.has(name)) element.say(said.has(name) ? sentence(said.get(name)) : "");
    }
    return errors.filter((one) => !(one.field.split("/")[0] in this.fields));
  }

  async submit(event) {
    event.preventDefault();
    if (this.button.disabled) return;
    attribute(this.button, "disabled", true);
    fill(this.button, "Starting…");
    fill(this.problems);
    try {
      const started = await api.start(this.config(), this.key);
      this.go(`run/${encodeURIComponent(started.id)}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refuse(error);
    } finally {
      attribute(this.button, "disabled", null);
      fill(this.button, "Start collection");
    }
  }

  refuse(error) {
    Object.keys(this.fields).forEach((name) => this.touched.add(name));
    const elsewhere = error.status === 422 ? this.say(error.errors) : [];
    const faulty = Object.values(this.fields).filter((element) => element.querySelector(".error")?.textContent);
    if (error.status === 422 && faulty.length) {
      fill(
        this.problems,
        notice(
          "bad",
          h(
            "strong",
            null,
            `${count(faulty.length, "field")} ${faulty.length === 1 ? "needs" : "need"} another value. `,
          ),
          elsewhere.map((one) => `${one.field}: ${one.message}. `),
        ),
      );
      if (this.more.contains(faulty[0])) this.more.open = true;
      (
        faulty[0].querySelector("[aria-invalid=true]") ??
        faulty[0].querySelector("input:not(:disabled)") ??
        this.problems
      ).focus();
    } else {
      fill(
        this.problems,
        notice(
          "bad",
          h("strong", null, `${words(error)[0]}. `),
          words(error)[1],
          error.status === 503 || error.status === 0 ? " Nothing was started twice: try again when it is back." : "",
        ),
      );
      this.problems.focus();
    }
    announce(this.problems.textContent);
  }
}

function choice(props, title, facts, detail) {
  return h(
    "label",
    { class: "choice" },
    h("input", props),
    h("span", { class: "title" }, title),
    h("span", { class: "facts" }, facts),
    detail && h("span", { class: "detail" }, detail),
  );
}

function split(text) {
  return [
    ...new Set(
      (text ?? "")
        .split(",")
        .map((one) => one.trim())
        .filter(Boolean),
    ),
  ];
}

/** What stands in a control, as the key's type. What is no number goes to the API as it is, which then says so. */
function typed(text, { type }) {
  if (type === "boolean") return text === "true";
  if (type === "string") return text.trim();
  return text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
