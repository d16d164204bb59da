// Judging, blind and by keyboard: one tip, the rubric's anchors beside it, every finished tip saved at once.

import { ApiError, api } from "../api.js";
import { announce, attribute, fill, h } from "../dom.js";
import { count } from "../format.js";
import { crumb, empty, field, head, meter, notice, tabs, words } from "../parts.js";
import { judgeFile } from "./judge-file.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}$/;
const BATCH = 5;
const AHEAD = 2;
const LOOK_MS = 220; // the last score stays in sight this long before the next tip comes
const RETRY_MS = 4000;

export async function judgePage({ parts: [experiment], query, signal, session, go }) {
  const scope = query.get("scope") === "all" ? "all" : "pending";
  const name = query.has("rename") ? null : remembered("tipbench.judge");
  if (!name) return { title: `Judge ${experiment}`, content: introduction(experiment, scope, session, go) };
  const first = await api.judging(experiment, { judge: name, scope, limit: BATCH }, signal);
  const sheet = new Sheet(experiment, name, scope, first, signal);
  return { title: `Judge ${experiment}`, content: sheet.content };
}

function remembered(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage is blocked: the name is asked for on every visit
  }
}

function remember(key, text) {
  try {
    if (text === null) localStorage.removeItem(key);
    else localStorage.setItem(key, text);
  } catch {
    // Storage is blocked: scores are still saved by the API, only half-scored tips are not kept.
  }
}

function introduction(experiment, scope, session, go) {
  const input = h("input", {
    type: "text",
    name: "judge",
    id: "judge-name",
    value: remembered("tipbench.judge") ?? session.user ?? "",
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
    remember("tipbench.judge", name);
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
        "You will see one tip at a time, without knowing who wrote it. Score each criterion from 1 to 5 against its anchors. Every finished tip is saved at once; stop and come back whenever you like.",
      ),
      named,
      h("div", null, h("button", { class: "button primary", type: "submit" }, "Start judging")),
    ),
    judgeFile(experiment),
  );
}

/** The tips in hand: those scored before, then those to come; `at` is the one in view. */
class Sheet {
  constructor(experiment, judge, scope, first, signal) {
    Object.assign(this, { experiment, judge, scope, signal });
    this.rubric = first.rubric;
    this.instructions = first.instructions;
    this.criteria = first.rubric.criteria;
    this.items = first.previous.map((item) => ({ ...item, scores: { ...item.scores }, saved: true }));
    this.at = this.items.length;
    this.undoable = [];
    this.progress = first.progress;
    this.work = Promise.resolve(); // saves and fetches, one after the other
    this.waiting = 0;
    this.draftKey = `tipbench.drafts ${experiment} ${judge}`;
    this.drafts = JSON.parse(remembered(this.draftKey) ?? "{}");
    this.take(first.items);

    this.state = h("span", { class: "soft small", role: "status" });
    this.bar = meter("Judged");
    this.figure = h("span", { class: "soft small num" });
    this.trouble = h("div", { "aria-live": "polite" });
    this.stage = h("div");
    const encoded = encodeURIComponent(experiment);
    this.content = h(
      "div",
      null,
      head(experiment, {
        crumbs: crumb("Judge"),
        actions: h(
          "span",
          { class: "soft small" },
          `Judging as ${judge} · `,
          h("a", { href: `#/judge/${encoded}?rename${scope === "all" ? "&scope=all" : ""}` }, "change"),
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
    const onKey = (event) => this.key(event);
    document.addEventListener("keydown", onKey, { signal });
    signal.addEventListener("abort", () => clearTimeout(this.turn));
    window.addEventListener("beforeunload", (event) => this.waiting && event.preventDefault(), { signal });
    this.resend(first);
    this.draw();
  }

  get item() {
    return this.items[this.at];
  }

  /** Add items that are not in hand yet; what was half-scored here before is as it was. */
  take(items) {
    const known = new Set(this.items.map((one) => one.id));
    for (const item of items) {
      if (!known.has(item.id))
        this.items.push({ ...item, scores: { ...(this.drafts[item.id]?.scores ?? item.scores) }, saved: false });
    }
  }

  /** Scores that were complete but never reached the API (the tab was closed meanwhile) are sent now. */
  resend({ previous }) {
    const done = new Map(previous.map((item) => [item.id, item]));
    for (const [id, draft] of Object.entries(this.drafts)) {
      if (!this.complete(draft)) continue;
      const item = this.items.find((one) => one.id === id) ?? { id, export_id: draft.export_id, scores: draft.scores };
      if (done.has(id)) item.scores = { ...draft.scores };
      this.save(item);
    }
    while (this.item && this.complete(this.item)) this.at += 1;
  }

  complete({ scores }) {
    return this.criteria.every((one) => scores[one.id]);
  }

  // -- what the judge does -----------------------------------------------------------------------

  key(event) {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (typing || event.altKey || event.metaKey || (event.ctrlKey && event.key !== "z")) return;
    const { scale_min: low, scale_max: high } = this.rubric;
    const acts = {
      ArrowRight: () => this.move(1),
      ArrowLeft: () => this.move(-1),
      ArrowDown: () => this.choose(1),
      ArrowUp: () => this.choose(-1),
      u: () => this.undo(),
      z: () => event.ctrlKey && this.undo(),
      Backspace: () => this.undo(),
    };
    const score = Number(event.key);
    const act =
      event.key.length === 1 && score >= low && score <= high && event.key !== " "
        ? () => this.score(this.active, score)
        : acts[event.key];
    if (!act) return;
    event.preventDefault();
    this.flush();
    act();
  }

  /** The next tip is due, but its turn has not come yet: bring it now. */
  flush() {
    if (!this.turn) return;
    clearTimeout(this.turn);
    this.turn = null;
    this.forward();
  }

  score(position, value) {
    if (!this.item) return;
    this.flush();
    const { item } = this;
    const { id, name } = this.criteria[position];
    this.undoable.push({ item, id, position, old: item.scores[id] });
    item.scores[id] = value;
    const open = this.criteria.findIndex((one) => !item.scores[one.id]);
    if (open >= 0) {
      this.active = open;
      this.keep(item);
      announce(`${name} ${value}. Next: ${this.criteria[open].name}`);
      this.drawCriteria(id);
    } else {
      announce(`${name} ${value}. Tip scored.`);
      this.active = position;
      this.drawCriteria(id);
      this.save(item);
      this.turn = setTimeout(() => this.flush(), LOOK_MS);
    }
  }

  undo() {
    const last = this.undoable.pop();
    if (!last) return announce("There is nothing to undo.");
    if (last.old) last.item.scores[last.id] = last.old;
    else delete last.item.scores[last.id];
    if (this.complete(last.item)) this.save(last.item);
    else this.keep(last.item);
    this.at = this.items.indexOf(last.item);
    this.draw(last.position);
    return announce(`Undone: ${this.criteria[last.position].name}.`);
  }

  move(step) {
    const to = this.at + step;
    if (to < 0 || to > this.items.length || (to === this.items.length && !this.item)) return;
    this.at = to;
    this.more();
    this.draw();
  }

  choose(step) {
    if (!this.item) return;
    this.active = Math.min(this.criteria.length - 1, Math.max(0, this.active + step));
    announce(this.criteria[this.active].name);
    this.drawCriteria();
  }

  /** To the next tip that is not scored: after going back, not through all that lie between. */
  forward() {
    this.at += 1;
    while (this.item && this.complete(this.item)) this.at += 1;
    this.more();
    this.draw();
  }

  // -- saving and fetching -----------------------------------------------------------------------

  /** Half-scored tips stay in this browser. */
  keep(item) {
    this.drafts[item.id] = { export_id: item.export_id, scores: { ...item.scores } };
    remember(this.draftKey, JSON.stringify(this.drafts));
  }

  save(item) {
    this.keep(item);
    const scores = { ...item.scores };
    this.waiting += 1;
    this.drawState();
    this.work = this.work.then(async () => {
      const saved = await this.insist(() =>
        api.score(this.experiment, item.id, {
          export_id: item.export_id,
          judge: { name: this.judge, kind: "human" },
          scores,
        }),
      );
      this.waiting -= 1;
      if (saved) {
        if (saved.outcome === "new")
          this.progress = { ...this.progress, done: this.progress.done + 1, left: this.progress.left - 1 };
        item.saved = true;
        if (JSON.stringify(this.drafts[item.id]?.scores) === JSON.stringify(scores)) delete this.drafts[item.id];
        remember(this.draftKey, Object.keys(this.drafts).length ? JSON.stringify(this.drafts) : null);
      }
      this.drawState();
    });
    this.more();
  }

  /** Fetch more when few are left; at the end, look once more whether somebody left something. */
  more() {
    if (this.fetching || this.items.length - this.at > AHEAD) return;
    this.fetching = true;
    this.work = this.work.then(async () => {
      const next = await this.insist(() =>
        api.judging(this.experiment, { judge: this.judge, scope: this.scope, limit: BATCH }, this.signal),
      );
      this.fetching = false;
      if (!next) return;
      const before = this.items.length;
      this.take(next.items);
      this.progress = next.progress;
      if (this.at >= before || !this.item) this.draw();
      else this.drawState();
    });
  }

  /** Try until it works; give up (null) on what another try cannot mend, and say so. */
  async insist(act) {
    for (;;) {
      try {
        const answer = await act();
        fill(this.trouble);
        return answer;
      } catch (error) {
        if (error.name === "AbortError") return null;
        if (!(error instanceof ApiError)) throw error;
        const { passing } = error;
        fill(
          this.trouble,
          notice(
            passing ? "warn" : "bad",
            h("strong", null, passing ? "Not saved yet. " : "This score could not be saved. "),
            words(error).join(". "),
            passing ? " Go on judging: what you score is kept in this browser and sent when the API is back." : "",
          ),
        );
        if (!passing) return null;
        await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 0) * 1000 || RETRY_MS));
        if (this.signal.aborted) return null;
      }
    }
  }

  // -- drawing -----------------------------------------------------------------------------------

  draw(active) {
    this.drawState();
    const { item } = this;
    if (!item)
      return void fill(
        this.stage,
        this.fetching || this.waiting ? h("p", { class: "loading" }, "Looking for more…") : this.finished(),
      );
    const open = this.criteria.findIndex((one) => !item.scores[one.id]);
    this.active = active ?? Math.max(0, open);
    this.panel = h("div");
    fill(
      this.stage,
      h(
        "div",
        { class: "judge" },
        h(
          "div",
          { class: "exhibit" },
          h(
            "div",
            { class: "card stack", "aria-live": "polite", "aria-atomic": "true" },
            h(
              "div",
              null,
              h("h2", { class: "eyebrow" }, "The situation"),
              h("p", { class: "scenario" }, item.scenario),
            ),
            h(
              "div",
              null,
              h("h2", { class: "eyebrow" }, "The tip"),
              h("blockquote", { class: "tip" }, item.tip || "(empty)"),
            ),
          ),
          h(
            "div",
            { class: "row between" },
            h(
              "div",
              { class: "row" },
              this.act("Previous", -1, this.at === 0),
              this.act("Next", 1, false),
              h(
                "button",
                {
                  class: "button compact",
                  type: "button",
                  disabled: !this.undoable.length,
                  on: { click: () => [this.flush(), this.undo()] },
                },
                "Undo",
              ),
            ),
          ),
          h(
            "p",
            { class: "keys" },
            h("span", null, h("kbd", null, "1"), "–", h("kbd", null, "5"), " score"),
            h("span", null, h("kbd", null, "↑"), " ", h("kbd", null, "↓"), " criterion"),
            h("span", null, h("kbd", null, "←"), " ", h("kbd", null, "→"), " tip"),
            h("span", null, h("kbd", null, "u"), " undo"),
          ),
          h(
            "details",
            { class: "small" },
            h("summary", null, "Instructions"),
            h("p", { class: "scenario" }, this.instructions),
          ),
        ),
        this.panel,
      ),
    );
    this.drawCriteria();
  }

  act(label, step, disabled) {
    return h(
      "button",
      { class: "button compact", type: "button", disabled, on: { click: () => [this.flush(), this.move(step)] } },
      label,
    );
  }

  drawCriteria(flash) {
    const focused = this.panel.contains(document.activeElement) ? document.activeElement.id : null;
    fill(
      this.panel,
      this.criteria.map((one, position) => this.criterion(one, position, flash === one.id)),
    );
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  criterion({ id, name, question, anchors }, position, flash) {
    const score = this.item.scores[id];
    return h(
      "section",
      {
        class: `criterion ${position === this.active ? "active" : ""}`,
        role: "group",
        "aria-labelledby": `c-${id}`,
        data: { criterion: id },
      },
      h(
        "div",
        { class: "row between" },
        h("h3", { id: `c-${id}` }, name),
        h("span", { class: "soft small num" }, score ? `${score} of ${this.rubric.scale_max}` : "open"),
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
              on: { click: () => this.score(position, anchor.score) },
            },
            h("b", null, String(anchor.score)),
            h("span", null, anchor.text),
          ),
        ),
      ),
    );
  }

  drawState() {
    const { done, left, pending, total } = this.progress;
    const all = this.scope === "all" ? total : done + Math.max(0, left);
    this.bar.update(all ? done / all : 1);
    fill(
      this.figure,
      all ? `${done} of ${count(all, "tip")} scored by you` : "Nothing is left to score",
      pending > left && this.scope === "pending" ? ` · ${pending} open in all` : "",
    );
    fill(this.state, this.waiting ? "Saving…" : this.items.some((one) => one.saved) ? "Saved" : "");
    attribute(this.state, "data-waiting", this.waiting);
  }

  finished() {
    const encoded = encodeURIComponent(this.experiment);
    const { pending, done } = this.progress;
    const ranking = h("a", { class: "button primary", href: `#/leaderboard/${encoded}` }, "See the leaderboard");
    const second =
      this.scope === "pending" &&
      h("a", { class: "button", href: `#/judge/${encoded}?scope=all` }, "Give a second opinion on the others’ tips");
    const back =
      this.items.length > 0 &&
      h("button", { class: "button", type: "button", on: { click: () => this.move(-1) } }, "Look back");
    if (pending > 0)
      return empty(
        "clock",
        "Nothing is left for you",
        h("p", null, `${count(pending, "tip")} still ${pending === 1 ? "has" : "have"} no score.`),
        h("div", { class: "row" }, ranking, back),
      );
    if (!this.progress.total && !done)
      return empty(
        "list",
        "There is nothing to judge",
        h("p", null, "Run a collection first, or give a second opinion if others have judged."),
        h(
          "div",
          { class: "row" },
          h("a", { class: "button primary", href: `#/collect?experiment=${encoded}` }, "Run collection"),
          second,
        ),
      );
    return empty(
      "check",
      "Every tip has a score",
      h("p", null, "Thank you. A run that waits for these scores goes on by itself."),
      h("div", { class: "row" }, ranking, second, back),
    );
  }
}
