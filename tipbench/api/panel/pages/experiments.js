// All experiments at a glance, and the collections that ran or run now.

import { ApiError, api } from "../api.js";
import { fill, h } from "../dom.js";
import { ago, count, dateTime, duration } from "../format.js";
import { split } from "../state/form.js";
import { empty, head, meter, notice, runPill, words } from "../parts.js";

const REFRESH_MS = 10_000;
const SHOWN_RUNS = 8;
const ASKED_RUNS = 40; // a chain of rounds is shown as one

/** The newest run of each chain. */
function chains(runs) {
  const seen = new Set();
  return runs.filter((run) => !seen.has(run.chain) && seen.add(run.chain)).slice(0, SHOWN_RUNS);
}

export async function experimentsPage({ signal }) {
  const content = h("div", { class: "stack" });
  const line = h("div", { role: "status" });
  const lists = h("div", { class: "stack" });
  fill(
    content,
    head("Experiments", {
      lead: "Which small model, with which prompt? Each experiment collects tips, has them judged blind, and ranks what wrote them.",
      actions: [
        h("a", { class: "button", href: "#/import" }, "Import"),
        h("a", { class: "button primary", href: "#/collect" }, "Run collection"),
      ],
    }),
    line,
    lists,
  );

  let shown = "";
  async function refresh() {
    const [experiments, runs, ready] = await Promise.all([
      api.experiments(signal),
      api.dagRuns({ limit: ASKED_RUNS }, signal).then(chains),
      api.ready(signal),
    ]);
    const now = JSON.stringify([experiments, runs, ready]);
    // Redrawing what has not changed would take the focus from somebody who is using the keyboard.
    if (now !== shown) draw(lists, experiments, runs, ready);
    shown = now;
    fill(line);
  }
  await refresh();

  /** One look after the other, however long one takes; what is on the page stays there, marked as old, while none succeeds. */
  async function again() {
    try {
      if (!document.hidden) await refresh();
    } catch (error) {
      if (error instanceof ApiError) {
        const [title, detail] = words(error);
        fill(line, notice("warn", h("strong", null, `This may be out of date: ${title}. `), detail));
      } else if (!signal.aborted) throw error;
    }
    if (!signal.aborted) timer = setTimeout(again, REFRESH_MS);
  }
  let timer = setTimeout(again, REFRESH_MS);
  signal.addEventListener("abort", () => clearTimeout(timer));
  return { title: "Experiments", content };
}

function draw(lists, experiments, runs, ready) {
  const away = (ready?.dependencies ?? []).filter((one) => !one.ok);
  fill(
    lists,
    away.map((one) => notice("bad", h("strong", null, `${one.name} is away. `), one.detail)),
    experiments.length
      ? h(
          "section",
          { class: "card flush", "aria-label": "Experiments" },
          h(
            "ul",
            { class: "plain rows experiments" },
            experiments.map((one) => experiment(one, runs)),
          ),
        )
      : empty(
          "list",
          "No experiment yet",
          h(
            "p",
            null,
            "A collection has every model write tips with every prompt. It takes minutes on a laptop with a small model.",
          ),
          h("a", { class: "button primary", href: "#/collect" }, "Run the first collection"),
        ),
    runs.length > 0 &&
      h(
        "section",
        { class: "card flush", "aria-labelledby": "runs" },
        h("h2", { id: "runs" }, "Latest collections"),
        h("ul", { class: "plain rows runs" }, runs.map(run)),
      ),
  );
}

function experiment(one, runs) {
  const encoded = encodeURIComponent(one.name);
  const done = one.pending + one.judged;
  const active = runs.find((run) => run.experiment === one.name && !run.ended_at);
  const share = done ? one.judged / done : 0;
  const judged = done ? (one.pending ? `${one.judged} of ${done} cells judged` : "all judged") : "nothing to judge";
  return h(
    "li",
    null,
    h(
      "div",
      null,
      h(
        "p",
        { class: "name" },
        h("a", { href: `#/${one.judged ? "leaderboard" : done ? "judge" : "leaderboard"}/${encoded}` }, one.name),
        " ",
        active && runPill(active),
      ),
      h(
        "p",
        { class: "soft small" },
        `${count(one.models.length, "model")} × ${count(one.prompts.length, "prompt")} · ${count(one.tips, "tip")}`,
        one.failed > 0 && [" · ", h("span", { class: "error" }, `${count(one.failed, "cell")} failed`)],
        aside(one) && [" · ", h("a", { href: `#/status/${encoded}` }, aside(one))],
      ),
    ),
    h(
      "div",
      { class: "stack tight" },
      meter(`Judged in ${one.name}`, share),
      h("span", { class: "soft small num" }, judged),
    ),
    h("p", { class: "soft small", title: dateTime(one.last_activity) }, ago(one.last_activity)),
    h(
      "div",
      { class: "row actions" },
      one.pending > 0 &&
        h(
          "a",
          { class: `button compact ${one.judged ? "" : "primary"}`, href: `#/judge/${encoded}` },
          "Judge",
          h("span", { class: "hidden" }, ` ${one.name}`),
        ),
      h(
        "a",
        { class: "button compact", href: `#/leaderboard/${encoded}` },
        "Leaderboard",
        h("span", { class: "hidden" }, ` of ${one.name}`),
      ),
    ),
  );
}

/** Cells that do not count, in words; empty when all do. */
function aside({ superseded = 0, twins = 0 }) {
  return [superseded && `${superseded} superseded`, twins && count(twins, "twin")].filter(Boolean).join(", ");
}

function run(one) {
  const took =
    one.started_at && one.ended_at
      ? `took ${duration((new Date(one.ended_at) - new Date(one.started_at)) / 1000)}`
      : "";
  return h(
    "li",
    null,
    h(
      "div",
      null,
      h("p", { class: "name" }, h("a", { href: `#/run/${encodeURIComponent(one.id)}` }, one.experiment)),
      h(
        "p",
        { class: "soft small" },
        [one.round > 1 && `round ${one.round}`, one.started_by && `by ${one.started_by}`, one.config.models && split(one.config.models).join(", ")]
          .filter(Boolean)
          .join(" · "),
      ),
    ),
    h("div", null, runPill(one)),
    h(
      "p",
      { class: "soft small", title: dateTime(one.started_at ?? one.queued_at) },
      ago(one.started_at ?? one.queued_at),
    ),
    h("p", { class: "soft small" }, took),
  );
}
