// A judge's tips in hand: those scored before, those to come, which one is in view, and what of it is saved. Draws nothing.

import { ApiError } from "../api.js";

export const BATCH = 5;
const AHEAD = 2;
const LOOK_MS = 220; // the last score stays in sight this long before the next tip comes
const RETRY_MS = 4000;

/** Half-scored tips, and those that the API has not taken yet, under one key of a Storage-like object. */
export class Drafts {
  constructor(storage, key) {
    Object.assign(this, { storage, key });
    this.all = JSON.parse(storage.getItem(key) ?? "{}");
  }

  get(id) {
    return this.all[id];
  }

  keep(item) {
    this.all[item.id] = { export_id: item.export_id, scores: { ...item.scores }, rationale: item.rationale };
    this.write();
  }

  /** Forget a draft, unless it has changed since `sent` went out. */
  settle(id, sent) {
    const now = this.all[id];
    if (now && JSON.stringify([now.scores, now.rationale]) === JSON.stringify([sent.scores, sent.rationale]))
      delete this.all[id];
    this.write();
  }

  write() {
    if (Object.keys(this.all).length) this.storage.setItem(this.key, JSON.stringify(this.all));
    else this.storage.removeItem(this.key);
  }
}

/**
 * `first` is the API's first answer; `fetch()` gets the next one, `send(item)` saves an item and resolves to its outcome.
 * `changed(what, detail)` is told of every change: "item" (another tip is in view), "scores" (of that tip; detail is the
 * criterion's id), "state" (progress, saving), "trouble" (detail is an ApiError or null) and "said" (words for a screen reader).
 */
export class Queue {
  constructor({ first, scope, drafts, fetch, send, changed, signal }) {
    Object.assign(this, { scope, drafts, changed, signal, ask: fetch, send });
    this.rubric = first.rubric;
    this.criteria = first.rubric.criteria;
    this.items = first.previous.map((item) => ({ ...item, scores: { ...item.scores }, saved: true }));
    this.at = this.items.length;
    this.active = 0; // the criterion that a key scores
    this.progress = first.progress;
    this.race = first.race ?? null; // in rounds: how far the decision is
    this.waiting = 0; // scores on their way to the API
    this.fetching = false;
    this.undoable = [];
    this.work = Promise.resolve(); // saves and fetches, one after the other
    this.turn = null;
    this.take(first.items);
    signal.addEventListener("abort", () => clearTimeout(this.turn));
  }

  /** Begin: scores that were complete but never reached the API (the tab was closed meanwhile) are sent now. */
  begin(first) {
    const done = new Set(first.previous.map((item) => item.id));
    for (const [id, draft] of Object.entries(this.drafts.all)) {
      if (!this.complete(draft)) continue;
      const item = this.items.find((one) => one.id === id) ?? { id, ...draft };
      if (done.has(id)) Object.assign(item, { scores: { ...draft.scores }, rationale: draft.rationale });
      this.save(item);
    }
    this.skipScored();
    this.enter();
  }

  get item() {
    return this.items[this.at];
  }

  /** Is there nothing in view only because more is being looked for? */
  get looking() {
    return this.fetching || this.waiting > 0;
  }

  given(item, { id }) {
    return item.scores?.[id];
  }

  complete(item) {
    return this.criteria.every((one) => this.given(item, one) !== undefined);
  }

  /** Position of the first criterion of the tip in view without a score; -1 when there is none. */
  open() {
    return this.criteria.findIndex((one) => this.given(this.item, one) === undefined);
  }

  /** Add items that are not in hand yet; what was half-scored here before is as it was. */
  take(items) {
    const known = new Set(this.items.map((one) => one.id));
    for (const item of items) {
      if (known.has(item.id)) continue;
      const draft = this.drafts.get(item.id);
      this.items.push({ ...item, ...draft, scores: { ...(draft?.scores ?? item.scores) }, saved: false });
    }
  }

  // -- what the judge does -----------------------------------------------------------------------

  score(position, value) {
    if (!this.item) return;
    this.flush();
    const { item } = this;
    if (!item) return;
    const { id, name } = this.criteria[position];
    this.undoable.push({ item, id, position, old: item.scores[id] });
    item.scores[id] = value;
    const open = this.open();
    if (open >= 0) {
      this.active = open;
      this.drafts.keep(item);
      this.changed("said", `${name} ${value}. Next: ${this.criteria[open].name}`);
      this.changed("scores", id);
    } else {
      this.active = position;
      this.changed("said", `${name} ${value}. Tip scored.`);
      this.changed("scores", id);
      this.save(item);
      this.turn = setTimeout(() => this.flush(), LOOK_MS);
    }
  }

  /** What decided the scores, in the judge's words. It goes with the scores: those of a saved tip have to change for it to be sent. */
  explain(item, text) {
    item.rationale = text.trim() || null;
    if (!item.saved) this.drafts.keep(item);
  }

  undo() {
    this.flush();
    const last = this.undoable.pop();
    if (!last) return this.changed("said", "There is nothing to undo.");
    if (last.old === undefined) delete last.item.scores[last.id];
    else last.item.scores[last.id] = last.old;
    if (this.complete(last.item)) this.save(last.item);
    else this.drafts.keep(last.item);
    this.at = this.items.indexOf(last.item);
    this.enter(last.position);
    return this.changed("said", `Undone: ${this.criteria[last.position].name}.`);
  }

  move(step) {
    this.flush();
    const to = this.at + step;
    if (to < 0 || to > this.items.length || (to === this.items.length && !this.item)) return;
    this.at = to;
    this.more();
    this.enter();
  }

  choose(step) {
    this.flush();
    if (!this.item) return;
    this.active = Math.min(this.criteria.length - 1, Math.max(0, this.active + step));
    this.changed("said", this.criteria[this.active].name);
    this.changed("scores");
  }

  /** The next tip is due, but its turn has not come yet: bring it now. */
  flush() {
    if (!this.turn) return;
    clearTimeout(this.turn);
    this.turn = null;
    this.forward();
  }

  /** To the next tip that is not scored: after going back, not through all that lie between. */
  forward() {
    this.at += 1;
    this.skipScored();
    this.more();
    this.enter();
  }

  skipScored() {
    while (this.item && this.complete(this.item)) this.at += 1;
  }

  enter(active) {
    this.active = active ?? (this.item ? Math.max(0, this.open()) : 0);
    this.changed("item");
  }

  // -- saving and fetching -----------------------------------------------------------------------

  save(item) {
    this.drafts.keep(item);
    const sent = { ...item, scores: { ...item.scores } };
    this.waiting += 1;
    this.changed("state");
    this.work = this.work.then(async () => {
      const answer = await this.insist(() => this.send(sent));
      this.waiting -= 1;
      if (answer) {
        if (answer.outcome === "new")
          this.progress = { ...this.progress, done: this.progress.done + 1, left: this.progress.left - 1 };
        item.saved = true;
        this.drafts.settle(item.id, sent);
      }
      this.changed("state");
      // What was fetched before this was saved does not know of it.
      if (!this.item) this.more();
    });
    this.more();
  }

  /** Fetch more when few are left; at the end, look once more whether somebody left something. */
  more() {
    if (this.fetching || this.items.length - this.at > AHEAD) return;
    this.fetching = true;
    this.work = this.work.then(async () => {
      const next = await this.insist(this.ask);
      this.fetching = false;
      if (!next) return;
      const before = this.items.length;
      this.take(next.items);
      this.progress = next.progress;
      this.race = next.race ?? null;
      if (this.at >= before || !this.item) this.enter();
      else this.changed("state");
    });
  }

  /** Try until it works; give up (null) on what another try cannot mend. Each failure is told as trouble. */
  async insist(act) {
    for (;;) {
      try {
        const answer = await act();
        this.changed("trouble", null);
        return answer;
      } catch (error) {
        if (error.name === "AbortError") return null;
        if (!(error instanceof ApiError)) throw error;
        this.changed("trouble", error);
        if (!error.passing) return null;
        await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 0) * 1000 || RETRY_MS));
        if (this.signal.aborted) return null;
      }
    }
  }
}

/**
 * Digits typed one after the other as one score: on a scale of 0 to 10, a 1 waits for a 0 that may follow, and a 7 does not.
 * `take(score)` gets a score as soon as no other score of the scale begins like it, or when nothing follows for a moment.
 */
export class Digits {
  constructor({ scale_min: low, scale_max: high }, take, waitMs = 700) {
    this.scale = Array.from({ length: high - low + 1 }, (_, i) => String(low + i));
    Object.assign(this, { take, waitMs, typed: "", timer: null });
  }

  /** Was this key a digit of some score? */
  press(key) {
    if (!/^[0-9]$/.test(key)) return false;
    let typed = this.typed + key;
    if (!this.scale.some((score) => score.startsWith(typed))) {
      this.settle(); // what was typed before is a score of its own
      typed = key;
      if (!this.scale.some((score) => score.startsWith(typed))) return false;
    }
    this.typed = typed;
    clearTimeout(this.timer);
    if (this.scale.some((score) => score !== typed && score.startsWith(typed)))
      this.timer = setTimeout(() => this.settle(), this.waitMs);
    else this.settle();
    return true;
  }

  /** Take what was typed, if that is a score. */
  settle() {
    clearTimeout(this.timer);
    const { typed } = this;
    this.typed = "";
    if (this.scale.includes(typed)) this.take(Number(typed));
  }

  drop() {
    clearTimeout(this.timer);
    this.typed = "";
  }
}
