// Judging, blind and by keyboard: one tip, the rubric's anchors beside it, every finished tip saved at once.

import { api } from "../api.js";
import { announce, attribute, fill, h } from "../dom.js";
import { count } from "../format.js";
import { crumb, head, meter, notice, tabs, tell, words } from "../parts.js";
import { BATCH, Digits, Drafts, Queue } from "../state/queue.js";
import { finished } from "./judge-end.js";
import { judgeFile } from "./judge-file.js";
import { introduction, memory, searchOf } from "./judge-start.js";
import { raceLine } from "./rounds.js";
import { sampleOffer } from "./sample.js";

const LONGEST_RATIONALE = 2000;
const SCOPES = ["pending", "all", "sample"];

export async function judgePage({ parts: [experiment], query, signal, session, go }) {
  const scope = SCOPES.includes(query.get("scope")) ? query.get("scope") : "pending";
  const name = query.has("rename") ? null : memory.getItem("tipbench.judge");
  const title = `Judge ${experiment}`;
  const offer = await api.sample(experiment, signal);
  if (scope === "sample" && !offer.sample) return { title, content: sampleFirst(experiment, name, offer, { signal, go }) };
  if (!name) {
    const { rubric } = await api.rubric(signal);
    return { title, content: introduction(experiment, scope, rubric, offer, { session, signal, go }) };
  }
  const first = await api.judging(experiment, { judge: name, scope, limit: BATCH }, signal);
  return { title, content: new Sheet(experiment, name, scope, first, offer, { signal, go }).content };
}

/** The page of a sample that has not been drawn yet. */
function sampleFirst(experiment, name, offer, { signal, go }) {
  return h(
    "div",
    null,
    head(experiment, { crumbs: crumb("Judge") }),
    tabs(experiment, "judge"),
    h("div", { class: "narrow" }, sampleOffer(experiment, name, offer, { scope: "sample", signal, go })),
  );
}

/** The page around a queue: draws what the queue tells of, and hands it what the judge does. */
class Sheet {
  constructor(experiment, judge, scope, first, offer, { signal, go }) {
    Object.assign(this, { experiment, judge, scope, offer, signal, go });
    this.instructions = first.instructions;
    this.rubric = first.rubric;
    this.queue = new Queue({
      first,
      scope,
      signal,
      drafts: new Drafts(memory, `tipbench.drafts ${experiment} ${judge}`),
      fetch: () => api.judging(experiment, { judge, scope, limit: BATCH }, signal),
      send: (item) =>
        api.score(experiment, item.id, {
          export_id: item.export_id,
          judge: { name: judge, kind: "human" },
          scores: item.scores,
          rationale: item.rationale ?? null,
        }),
      changed: (what, detail) => this.changed(what, detail),
    });
    this.digits = new Digits(first.rubric, (score) => this.queue.score(this.queue.active, score));

    this.state = h("span", { class: "soft small", role: "status" });
    this.bar = meter("Judged");
    this.figure = h("span", { class: "soft small num" });
    this.decision = h("div", { role: "status" });
    this.trouble = h("div", { "aria-live": "polite" });
    this.stage = h("div");
    this.content = this.frame();
    document.addEventListener("keydown", (event) => this.key(event), { signal });
    window.addEventListener("beforeunload", (event) => this.queue.waiting && event.preventDefault(), { signal });
    signal.addEventListener("abort", () => this.digits.drop());
    this.queue.begin(first);
  }

  frame() {
    const { experiment, judge, scope } = this;
    const rename = `#/judge/${encodeURIComponent(experiment)}${searchOf(scope, "rename")}`;
    return h(
      "div",
      null,
      head(experiment, {
        crumbs: crumb("Judge"),
        actions: h(
          "span",
          { class: "soft small" },
          `Judging as ${judge} · `,
          h("a", { href: rename }, "change"),
        ),
      }),
      tabs(experiment, "judge"),
      h(
        "div",
        { class: "stack" },
        h("div", { class: "stack tight" }, h("div", { class: "row between" }, this.figure, this.state), this.bar),
        this.decision,
        this.trouble,
        this.stage,
        scope !== "sample" && sampleOffer(experiment, judge, this.offer, { scope, signal: this.signal, go: this.go }),
        judgeFile(experiment, judge),
      ),
    );
  }

  changed(what, detail) {
    const draw = {
      item: () => this.drawItem(),
      scores: () => this.drawCriteria(detail),
      state: () => (this.queue.item ? this.drawState() : this.drawItem()),
      trouble: () => this.drawTrouble(detail),
      said: () => announce(detail),
    };
    draw[what]();
  }

  // -- keys --------------------------------------------------------------------------------------

  key(event) {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (typing || event.altKey || event.metaKey || (event.ctrlKey && event.key !== "z")) return;
    const acts = {
      ArrowRight: () => this.queue.move(1),
      ArrowLeft: () => this.queue.move(-1),
      ArrowDown: () => this.queue.choose(1),
      ArrowUp: () => this.queue.choose(-1),
      u: () => this.queue.undo(),
      z: () => event.ctrlKey && this.queue.undo(),
      Backspace: () => this.queue.undo(),
      r: () => this.reason?.focus(),
      "?": () => this.help(),
    };
    if (!event.ctrlKey && this.queue.item && this.digits.press(event.key)) return void event.preventDefault();
    if (event.key === "Enter" && this.digits.typed) acts.Enter = () => {}; // takes what was typed, at once
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    this.digits.settle();
    this.queue.flush();
    act();
  }

  /** Every key that does something, as [keys, what it does]. */
  keys() {
    const { scale_min: low, scale_max: high } = this.rubric;
    return [
      [[String(low), "–", String(high)], `score the marked criterion${high > 9 ? "; two digits of a score one after the other" : ""}`],
      [["↑", "↓"], "another criterion"],
      [["←", "→"], "the tip before, the next tip"],
      [["u"], "undo the last score"],
      [["r"], "say why; Esc leads back to the scores"],
      [["?"], "these keys"],
    ];
  }

  help() {
    tell(
      "Keys",
      h(
        "dl",
        { class: "facts-list left keylist" },
        this.keys().map(([keys, does]) => [h("dt", null, strokes(keys)), h("dd", null, does)]),
      ),
    );
  }

  // -- drawing -----------------------------------------------------------------------------------

  drawItem() {
    this.drawState();
    const { item } = this.queue;
    this.reason = null;
    if (!item) {
      const { looking } = this.queue;
      return void fill(this.stage, looking ? h("p", { class: "loading" }, "Looking for more…") : finished(this.queue, this));
    }
    this.panel = h("div");
    fill(
      this.stage,
      h(
        "div",
        { class: "judge" },
        h("div", { class: "exhibit" }, exhibit(item), this.controls(), this.instructionsBox()),
        h("div", null, this.panel, this.rationale(item)),
      ),
    );
    this.drawCriteria();
  }

  controls() {
    const { queue } = this;
    const button = (label, act, disabled) =>
      h(
        "button",
        {
          class: "button compact",
          type: "button",
          disabled,
          on: { click: () => [this.digits.settle(), act()] },
        },
        label,
      );
    return [
      h(
        "div",
        { class: "row" },
        button("Previous", () => queue.move(-1), queue.at === 0),
        button("Next", () => queue.move(1), false),
        button("Undo", () => queue.undo(), !queue.undoable.length),
        h(
          "button",
          { class: "button quiet compact keyhelp", type: "button", on: { click: () => this.help() } },
          h("kbd", null, "?"),
          " Keys",
        ),
      ),
    ];
  }

  instructionsBox() {
    return h(
      "details",
      { class: "small" },
      h("summary", null, "Instructions"),
      h("p", { class: "scenario" }, this.instructions),
    );
  }

  rationale(item) {
    this.reason = h("textarea", {
      id: "rationale",
      rows: 2,
      maxlength: LONGEST_RATIONALE,
      value: item.rationale ?? "",
      on: {
        // Kept with every stroke, so that the last score takes it along.
        input: (event) => this.queue.explain(item, event.target.value),
        keydown: (event) => event.key === "Escape" && event.target.blur(),
      },
    });
    return h(
      "div",
      { class: "field rationale" },
      h("label", { for: "rationale" }, "Why? ", h("span", { class: "soft" }, item.saved ? "(goes with a score that you change)" : "(may stay empty)")),
      this.reason,
    );
  }

  drawCriteria(flash) {
    const focused = this.panel.contains(document.activeElement) ? document.activeElement.id : null;
    fill(
      this.panel,
      this.queue.criteria.map((one, position) => this.criterion(one, position, flash === one.id)),
    );
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  criterion({ id, name, question, anchors }, position, flash) {
    const score = this.queue.item.scores[id];
    return h(
      "section",
      {
        class: `criterion ${position === this.queue.active ? "active" : ""}`,
        role: "group",
        "aria-labelledby": `c-${id}`,
        data: { criterion: id },
      },
      h(
        "div",
        { class: "row between" },
        h("h3", { id: `c-${id}` }, name),
        h("span", { class: "soft small num" }, score === undefined ? "open" : `${score} of ${this.rubric.scale_max}`),
      ),
      h("p", { class: "question soft small" }, question),
      h(
        "div",
        { class: "anchors" },
        anchors.map((anchor) =>
          h(
            "button",
            {
              class: `anchor ${flash && anchor.score === score ? "flash" : ""}`,
              id: `a-${id}-${anchor.score}`,
              type: "button",
              "aria-pressed": String(anchor.score === score),
              on: { click: () => [this.digits.drop(), this.queue.score(position, anchor.score)] },
            },
            h("b", null, String(anchor.score)),
            h("span", null, anchor.text),
          ),
        ),
      ),
    );
  }

  drawState() {
    const { progress, waiting, items } = this.queue;
    const { done, total, others } = progress;
    this.bar.update(total ? done / total : 1, 0);
    fill(
      this.figure,
      total ? `${done} of ${count(total, "tip")}${this.scope === "sample" ? " of the sample" : ""} scored by you` : "Nothing is left to score",
      others > 0 && ` · ${others} by others`,
    );
    // Written only when it changes: a screen reader would say it again with every score.
    const said = JSON.stringify(this.queue.race);
    if (said !== this.saidOfRace) fill(this.decision, raceLine(this.queue.race));
    this.saidOfRace = said;
    fill(this.state, waiting ? "Saving…" : items.some((one) => one.saved) ? "Saved" : "");
    attribute(this.state, "data-waiting", waiting);
  }

  drawTrouble(error) {
    if (!error) return void fill(this.trouble);
    const { passing } = error;
    return void fill(
      this.trouble,
      notice(
        passing ? "warn" : "bad",
        h("strong", null, passing ? "Not saved yet. " : "This score could not be saved. "),
        words(error).join(". "),
        passing ? " Go on judging: what you score is kept in this browser and sent when the API is back." : "",
      ),
    );
  }
}

function exhibit({ scenario, tip }) {
  return h(
    "div",
    { class: "card stack", "aria-live": "polite", "aria-atomic": "true" },
    h("div", null, h("h2", { class: "eyebrow" }, "The situation"), h("p", { class: "scenario" }, scenario)),
    h("div", null, h("h2", { class: "eyebrow" }, "The tip"), h("blockquote", { class: "tip" }, tip || "(empty)")),
  );
}

/** Key caps; a dash stands between two without being one. */
function strokes(keys) {
  return keys.map((key) => (key === "–" ? " – " : [h("kbd", null, key), " "]));
}
