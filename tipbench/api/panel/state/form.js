// What a collection will be: the form's values, which models and prompts are chosen, and whether it can be started. Draws nothing.

/** Keys that every request carries; others are left to the server, whose defaults may change, unless they differ from them. */
export const MAIN_KEYS = new Set([
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
/** Keys that belong to one way of judging; in another they are not sent. */
export const JUDGE_KEYS = {
  manual: ["judge_timeout_hours"],
  llm: ["judge_model", "judge_parallel", "judge_rationale", "sample", "sample_tips", "reference", "judge_timeout_hours"],
};
const OF_SOME_JUDGE = new Set(Object.values(JUDGE_KEYS).flat());
/** Keys that have a place of their own in the form, so that they do not stand among the further settings. */
export const PLACED_KEYS = new Set([...MAIN_KEYS, ...OF_SOME_JUDGE]);
/** Keys that change what the engine has or what a model needs. */
export const AFFECT_MODELS = new Set(["max_model_b", "num_ctx", "memory_limit", "parallel", "engine", "ollama_url"]);
const MOST_AT_FIRST = 4;

export class CollectionForm {
  /** `form` is the API's schema; `wanted` is an earlier run's configuration, to be started from; `experiment` replaces its name. */
  constructor(form, wanted = {}, experiment = null) {
    // A key without a default means nothing where this API runs.
    this.schema = Object.fromEntries(Object.entries(form.schema.properties).filter(([name]) => name in form.defaults));
    this.defaults = form.defaults;
    this.scenarios = form.scenarios;
    this.values = { ...form.defaults, ...wanted };
    if (experiment) this.values.experiment = experiment;
    this.models = new Set(split(this.values.models));
    const asked = split(this.values.prompts);
    const there = new Set(form.prompts.map((prompt) => prompt.name));
    const gone = "prompts" in wanted ? asked.filter((name) => !there.has(name)) : [];
    // Those that there are, and those of the earlier run that are no more.
    this.offered = [...form.prompts, ...gone.map((name) => ({ name, problem: "There is no prompt of that name any more." }))];
    const sound = new Set(form.prompts.filter((prompt) => !prompt.problem).map((prompt) => prompt.name));
    const chosen = asked.filter((name) => sound.has(name));
    // With prompts of one's own the defaults may not be among them.
    this.prompts = new Set(chosen.length || "prompts" in wanted ? chosen : [...sound].slice(0, MOST_AT_FIRST));
    this.asked = [...new Set([...split(form.defaults.models), ...this.models])]; // listed whether the engine has them or not
    this.rows = null; // what the engine has; null until it has answered
    this.available = false;
    this.own = "models" in wanted; // the choice of models is somebody's, not a default
    this.renew();
  }

  /** A double click or a retry repeats this key, so that it starts one run; another configuration gets another key. */
  renew() {
    this.key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
      byte.toString(16).padStart(2, "0"),
    ).join("");
  }

  /** Put what was typed for a key. What is no number goes to the API as it is, which then says so. */
  put(name, text) {
    const { type } = this.schema[name];
    if (type === "boolean") this.values[name] = text === "true";
    else if (type === "string") this.values[name] = text.trim();
    else this.values[name] = text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
    this.renew();
  }

  /** Tick or untick one of `models` or `prompts`. */
  choose(what, name, on) {
    this[what][on ? "add" : "delete"](name);
    if (what === "models") this.own = true;
    this.renew();
  }

  /** Add models by their tags, ticked; returns the tags. */
  add(text) {
    const tags = split(text);
    for (const tag of tags) {
      this.models.add(tag);
      if (!this.asked.includes(tag)) this.asked.push(tag);
    }
    if (tags.length) this.own = true;
    this.renew();
    return tags;
  }

  /** The engine's answer. The first one decides what is ticked, unless somebody has chosen: what is configured and there, else what is there. */
  answered({ models, available }) {
    const first = this.rows === null;
    this.rows = models;
    this.available = available;
    // The same model by the engine's own spelling (with :latest) is one choice.
    for (const { model } of models)
      if (model.endsWith(":latest") && this.models.delete(model.slice(0, -":latest".length))) this.models.add(model);
    if (!first || this.own || !available) return;
    const there = models.filter((row) => row.installed && row.allowed);
    const configured = there.filter((row) => row.configured && this.models.has(row.model));
    const chosen = configured.length ? configured : smallest(there, MOST_AT_FIRST);
    if (chosen.length) this.models = new Set(chosen.map((row) => row.model));
    this.renew();
  }

  row(model) {
    return this.rows?.find((one) => one.model === model);
  }

  /** Models that a run would have: those ticked, without those that the policy refuses. */
  get wanted() {
    const known = (this.rows ?? []).map((row) => row.model);
    const order = (model) => (known.includes(model) ? known.indexOf(model) : known.length);
    return [...this.models].filter((model) => this.row(model)?.allowed !== false).sort((a, b) => order(a) - order(b));
  }

  /** Of the wanted models, those that the engine does not have: the run pulls them, or else does without. */
  get missing() {
    return this.available ? this.wanted.filter((model) => this.row(model)?.installed === false) : [];
  }

  get pulls() {
    return this.values.pull === true && this.values.engine !== "embedded";
  }

  /** Why a start would collect nothing; empty when it would collect something. */
  get obstacle() {
    if (!this.wanted.length)
      return this.rows?.length === 0 ? "The engine has no model yet: add one by its tag." : "Choose at least one model.";
    if (!this.prompts.size) return "Choose at least one prompt.";
    if (!this.pulls && this.missing.length === this.wanted.length)
      return "None of the chosen models is there, and nothing would be pulled.";
    return "";
  }

  /** The configuration as the API takes it. */
  config() {
    const config = {};
    for (const name of Object.keys(this.schema)) {
      const value = this.values[name];
      if (MAIN_KEYS.has(name) || value !== this.defaults[name]) config[name] = value;
    }
    if (!config.judge_model) delete config.judge_model;
    const apply = new Set(JUDGE_KEYS[config.judge] ?? []);
    for (const name of OF_SOME_JUDGE) if (name !== "judge_model" && !apply.has(name)) delete config[name];
    if (config.judge === "llm" && !config.sample) delete config.judge_timeout_hours;
    config.models = this.wanted.join(",");
    config.prompts = [...this.prompts].join(",");
    return config;
  }

  /** What the question for the engine's models depends on. */
  modelsQuery() {
    const query = { models: [...new Set([...this.asked, ...this.models])].join(",") };
    for (const name of AFFECT_MODELS) {
      const value = this.values[name];
      if (name in this.schema && value !== this.defaults[name] && value !== "") query[name] = value;
    }
    return query;
  }
}

/** Names between commas, each once. */
export function split(text) {
  return [
    ...new Set(
      (text ?? "")
        .split(",")
        .map((one) => one.trim())
        .filter(Boolean),
    ),
  ];
}

function smallest(rows, most) {
  const size = (row) => row.parameters ?? row.size_bytes ?? Infinity;
  return [...rows].sort((a, b) => size(a) - size(b)).slice(0, most);
}

/** Of several questions under way, the answer to the last one counts: `latest()` returns a test for one that is asked now. */
export class Turns {
  constructor() {
    this.last = 0;
  }

  latest() {
    this.last += 1;
    const mine = this.last;
    return () => mine === this.last;
  }
}
