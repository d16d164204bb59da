// The form that starts a collection: fields, defaults and limits come from the API's schema; the API alone validates.

import { ApiError, api } from "../api.js";
import { announce, attribute, fill, h } from "../dom.js";
import { count } from "../format.js";
import { crumb, field, head, notice, words } from "../parts.js";
import { AFFECT_MODELS, CollectionForm, PLACED_KEYS, Turns } from "../state/form.js";
import { judgeSection } from "./collect-judge.js";
import { consequences, control, groupError, modelChoice, promptChoice, sentence, summary } from "./collect-parts.js";

const WAIT_MS = 350;
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
  until: "Go on until",
  block: "Block of a round",
  margin: "Points that do not matter",
  cells: "Only these cells",
};

export async function collectPage({ query, signal, go }) {
  const again = query.get("again");
  const [schema, known, earlier] = await Promise.all([
    api.form(signal),
    api.experiments(signal).catch(() => []),
    again ? api.dagRun(again, signal).catch(() => null) : null,
  ]);
  const form = new CollectionForm(schema, earlier?.config, query.get("experiment"));
  return { title: "Run collection", content: new CollectView(form, schema, known, { signal, go }).content };
}

/** Draws a CollectionForm, and hands it what is typed and ticked. */
class CollectView {
  constructor(form, schema, known, { signal, go }) {
    Object.assign(this, { form, schema, signal, go });
    this.fields = {}; // key -> an element with say(text)
    this.touched = new Set();
    this.turns = { models: new Turns(), estimate: new Turns() };

    this.problems = h("div", { class: "stack tight", tabindex: -1 });
    this.summary = h("div", { class: "stack tight" });
    this.consequences = h("div", { class: "stack tight", id: "consequences", "aria-live": "polite" });
    this.modelList = h("div", { class: "choices" });
    this.button = h(
      "button",
      { class: "button primary", type: "submit", "aria-describedby": "consequences" },
      "Start collection",
    );
    this.content = h(
      "div",
      null,
      head("Run collection", {
        crumbs: crumb("Run collection"),
        lead: "Every model writes tips with every prompt for the same scenarios. Cells that are finished already are not collected again.",
      }),
      h(
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
          this.consequences,
          this.button,
        ),
      ),
    );
    signal.addEventListener("abort", () => [clearTimeout(this.timer), clearTimeout(this.modelTimer)]);
    this.loadModels().then(() => this.estimate());
    this.drawConsequences();
  }

  // -- sections ----------------------------------------------------------------------------------

  where(known) {
    const input = h("input", {
      type: "text",
      name: "experiment",
      value: this.form.values.experiment,
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
    this.fields.models = groupError(set, "models");
    return set;
  }

  prompts() {
    const set = h(
      "fieldset",
      { class: "card", "aria-describedby": "prompts-error" },
      h("legend", null, "Prompts"),
      h(
        "div",
        { class: "choices" },
        this.form.offered.map((prompt) => promptChoice(prompt, this.form.prompts.has(prompt.name))),
      ),
    );
    this.fields.prompts = groupError(set, "prompts");
    return set;
  }

  size() {
    const total = this.schema.scenarios.length;
    const first = (n) => (n === 1 ? "Only the first" : `The first ${n}`);
    const numbers = Array.from({ length: total - 1 }, (_, i) => total - 1 - i);
    const scenarios = field(
      h(
        "select",
        { name: "n_scenarios" },
        h("option", { value: "0" }, `All ${total}`),
        numbers.map((n) => h("option", { value: String(n), selected: this.form.values.n_scenarios === n }, first(n))),
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
    this.judged = judgeSection(this.form, (name, label, more) => this.input(name, label, more));
    this.fields.judge = groupError(this.judged.element, "judge");
    return this.judged.element;
  }

  advanced() {
    const names = Object.keys(this.form.schema).filter((name) => !PLACED_KEYS.has(name));
    const changed = names.some((name) => this.form.values[name] !== this.form.defaults[name]);
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
    const rules = this.form.schema[name];
    const value = this.form.values[name];
    this.fields[name] = field(control(name, rules, value, more), label ?? LABELS[name] ?? sentence(name.replace(/_/g, " ")), {
      hint: rules.description,
    });
    return this.fields[name];
  }

  // -- models ------------------------------------------------------------------------------------

  async loadModels() {
    const isLatest = this.turns.models.latest();
    if (!this.form.rows) fill(this.modelList, h("p", { class: "soft" }, "Asking the engine…"));
    try {
      const answer = await api.models(this.form.modelsQuery(), this.signal);
      if (!isLatest()) return;
      this.form.answered(answer);
      this.drawModels(answer);
      this.drawConsequences();
    } catch (error) {
      if (this.signal.aborted || !isLatest() || !(error instanceof ApiError)) return;
      // A setting that is at fault is shown at its own field by the estimate.
      if (error.status !== 422)
        fill(this.modelList, notice("bad", h("strong", null, `${words(error)[0]}. `), words(error)[1]));
    }
  }

  drawModels({ models, available, problem, memory_limit_bytes: limit }) {
    const order = (row) => (row.allowed ? (row.installed ? 0 : 1) : 2);
    fill(
      this.modelList,
      !available &&
        notice("warn", problem ?? "The engine cannot be reached; what follows is known from the tags alone."),
      !models.length && h("p", { class: "soft" }, "The engine has no models yet. Add one by its tag below."),
      [...models].sort((a, b) => order(a) - order(b)).map((row) => modelChoice(row, this.form.models.has(row.model), limit)),
    );
  }

  addModel(input) {
    const tags = this.form.add(input.value);
    if (!tags.length) return input.focus();
    input.value = "";
    announce(`${tags.join(", ")} added`);
    this.loadModels().then(() => this.estimate());
    return input.focus();
  }

  // -- what is typed and ticked ------------------------------------------------------------------

  changed({ target: { name, value, checked } }) {
    if (!name) return;
    this.touched.add(name);
    if (name === "models" || name === "prompts") this.form.choose(name, value, checked);
    else this.form.put(name, value);
    if (name === "judge" || name === "sample") this.judged.show();
    if (AFFECT_MODELS.has(name)) {
      clearTimeout(this.modelTimer);
      this.modelTimer = setTimeout(() => this.loadModels(), WAIT_MS);
    }
    this.drawConsequences();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.estimate(), WAIT_MS);
  }

  // -- estimate and start ------------------------------------------------------------------------

  async estimate() {
    const isLatest = this.turns.estimate.latest();
    const config = this.form.config();
    if (this.form.obstacle) return void fill(this.summary);
    try {
      const found = await api.estimate(config, this.signal);
      if (!isLatest()) return;
      this.say([], this.touched);
      fill(this.summary, summary(found, config, this.schema.scenarios.length));
    } catch (error) {
      if (this.signal.aborted || !isLatest() || !(error instanceof ApiError)) return;
      if (error.status === 422) {
        this.say(error.errors, this.touched);
        fill(this.summary, h("p", { class: "soft" }, "Some fields need another value first."));
      } else fill(this.summary, notice("warn", words(error).join(". ")));
    }
  }

  /** What a start would do beyond collecting; when it would collect nothing, it is not offered. */
  drawConsequences() {
    attribute(this.button, "disabled", this.form.rows !== null && Boolean(this.form.obstacle));
    fill(this.consequences, consequences(this.form));
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
      const started = await api.start(this.form.config(), this.form.key);
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
