// Judging, blind and by keyboard: one tip, the rubric's anchors beside it, every finished tip saved at once.

import { api } from "../api.js";
import { announce, attribute, fill, h } from "../dom.js";
import { count } from "../format.js";
import { crumb, empty, field, head, meter, notice, tabs, tell, words } from "../parts.js";
import { BATCH, Digits, Drafts, Queue } from "../state/queue.js";
import { judgeFile } from "./judge-file.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}$/;
const LONGEST_RATIONALE = 2000;

export async function judgePage({ parts: [experiment], query, signal, session, go }) {
  const scope = query.get("scope") === "all" ? "all" : "pending";
  const name = query.has("rename") ? null : memory.getItem("tipbench.judge");
  const title = `Judge ${experiment}`;
  if (!name) {
    const { rubric } = await api.rubric(signal);
    return { title, content: introduction(experiment, scope, rubric, session, go) };
  }
  const first = await api.judging(experiment, { judge: name, scope, limit: BATCH }, signal);
  return { title, content: new Sheet(experiment, name, scope, first, signal).content };
}

/** The browser's storage; where that is blocked, nothing is remembered, and scores are still saved by the API. */
const memory = {
  getItem(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  setItem(key, text) {
    try {
      localStorage.setItem(key, text);
    } catch {
      // Half-scored tips are not kept.
    }
  },
  removeItem(key) {
    try {
      localStorage.removeItem(key);
    } catch {
      // There is nothing to remove.
    }
  },
};

function introduction(experiment, scope, { scale_min: low, scale_max: high }, session, go) {
  const input = h("input", {
    type: "text",
    name: "judge",
    id: "judge-name",
    value: memory.getItem("tipbench.judge") ?? session.user ?? "",
    autocomplete: "nickname",
    spellcheck: "false",
    "data-first": true,
  });
  const named = field(input, "Your name as judge", {
    hint: "Your scores are filed under it. Letters, digits and . _ : / @ + - only.",
  });
  function submit(event) {
    event.preventDefault();
    const name = input.value.trim();
    if (!NAME.test(name)) {
      named.say(name ? "A name begins with a letter or digit, and has no blanks." : "Enter a name.");
      return void input.focus();
    }
    memory.setItem("tipbench.judge", name);
    return go(`judge/${encodeURIComponent(experiment)}${scope === "all" ? "?scope=all" : ""}`, { replace: true });
  }
  return h(
    "div",
    null,
    head(experiment, { crumbs: crumb("Judge") }),
    tabs(experiment, "judge"),
    h(
      "form",
      { class: "card stack narrow", novalidate: true, on: { submit } },
      h("h2", null, "Before you start"),
      h(
        "p",
        { class: "soft" },
        `You will see one tip at a time, without knowing who wrote it. Score each criterion from ${low} to ${high} against its anchors. Every finished tip is saved at once; stop and come back whenever you like.`,
      ),
      named,
      h("div", null, h("button", { class: "button primary", type: "submit" }, "Start judging")),
    ),
    judgeFile(experiment),
  );
}

/** The page around a queue: draws what the queue tells of, and hands it what the judge does. */
class Sheet {
  constructor(experiment, judge, scope, first, signal) {
    Object.assign(this, { experiment, judge, scope });
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
    const rename = `#/judge/${encodeURIComponent(experiment)}?rename${scope === "all" ? "&scope=all" : ""}`;
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
        this.trouble,
        this.stage,
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
      return void fill(this.stage, looking ? h("p", { class: "loading" }, "Looking for more…") : this.finished());
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
      total ? `${done} of ${count(total, "tip")} scored by you` : "Nothing is left to score",
      others > 0 && ` · ${others} by others`,
    );
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

  finished() {
    const encoded = encodeURIComponent(this.experiment);
    const { pending, done, total } = this.queue.progress;
    const ranking = h("a", { class: "button primary", href: `#/leaderboard/${encoded}` }, "See the leaderboard");
    const second =
      this.scope === "pending" &&
      h("a", { class: "button", href: `#/judge/${encoded}?scope=all` }, "Give a second opinion on the others’ tips");
    const back =
      this.queue.items.length > 0 &&
      h("button", { class: "button", type: "button", on: { click: () => this.queue.move(-1) } }, "Look back");
    if (pending > 0)
      return empty(
        "clock",
        "Nothing is left for you",
        h("p", null, `${count(pending, "tip")} still ${pending === 1 ? "has" : "have"} no score.`),
        h("div", { class: "row" }, ranking, back),
      );
    if (!total && !done)
      return empty(
        "list",
        "There is nothing to judge",
        h("p", null, "Run a collection first; its tips then wait here."),
        h("a", { class: "button primary", href: `#/collect?experiment=${encoded}` }, "Run collection"),
      );
    return empty(
      "check",
      "Every tip has a score",
      h("p", null, "Thank you. A run that waits for these scores goes on by itself."),
      h("div", { class: "row" }, ranking, second, back),
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
