// One run, live: which task and which model is where, how long it will take, and in words what went wrong.

import { api } from "../api.js";
import { announce, fill, h } from "../dom.js";
import { UNKNOWN, count, dateTime, duration } from "../format.js";
import { confirm, crumb, head, icon, meter, notice, runPill, words } from "../parts.js";
import { boardPath } from "../state/board.js";
import { split } from "../state/form.js";
import { follow } from "../state/stream.js";
import { chainCard, underWay } from "./rounds.js";

const TASKS = {
  plan: "Check the configuration",
  collect: "Collect tips",
  export_for_judge: "Prepare the judge’s file",
  pick_judge: "Choose the judge",
  export_sample: "Draw the sample for people",
  judge: "Judge",
  await_scores: "Wait for scores",
  await_sample: "Wait for the sample",
  compare: "Rank",
  another_round: "Is it sure?",
  next_round: "Start the next round",
  clear_away: "Clear away",
};
const LOOK_MS = 4000;
const MARKS = {
  success: ["good", "check"],
  failed: ["bad", "cross"],
  running: ["live", "turn"],
  waiting: ["warn", "person"],
  skipped: ["", "dash"],
  pending: ["", "clock"],
};
const IN_WORDS = {
  success: "done",
  failed: "failed",
  running: "running",
  waiting: "waiting",
  skipped: "not needed",
  pending: "to come",
};

export async function runPage({ parts: [id], signal, go }) {
  const first = await api.dagRun(id, signal);
  const content = h("div", { class: "stack" });
  const line = h("div", { role: "status" });
  const refusal = h("div", { role: "alert" });
  const body = h("div", { class: "stack" });
  const view = { now: first, said: null };
  fill(content, line, refusal, body);

  function onState(run) {
    view.now = run;
    // A chain is followed as one: whoever watched this round goes on with the next.
    const next = !first.ended_at && run.ended_at && run.chain_runs.find((one) => one.round > run.round);
    if (next) return void go(`run/${encodeURIComponent(next.id)}`, { replace: true });
    draw(body, run, () => cancel(run, refusal));
    const said = `${run.experiment}: ${IN_WORDS[run.state] ?? run.state}`;
    if (view.said && view.said !== said) announce(said);
    view.said = said;
  }
  const onProblem = (error) =>
    fill(
      line,
      error &&
        notice("warn", h("strong", null, `${words(error)[0]}. `), words(error)[1], " This page tries again by itself."),
    );

  onState(first);
  if (!first.ended_at) follow(id, { signal, onState, onProblem });
  else if (underWay(first)) lookAgain(id, { signal, onState, onProblem });
  const clock = setInterval(() => view.now.ended_at || tick(body, view.now), 1000);
  signal.addEventListener("abort", () => clearInterval(clock));
  return { title: `Run of ${first.experiment}`, content };
}

/** A round that is over does not change, but its chain does: asked every few seconds while that is under way. */
function lookAgain(id, { signal, onState, onProblem }) {
  async function look() {
    try {
      const run = await api.dagRun(id, signal);
      onProblem(null);
      onState(run);
      if (!underWay(run)) return;
    } catch (error) {
      if (signal.aborted) return;
      onProblem(error);
    }
    timer = setTimeout(look, LOOK_MS);
  }
  let timer = setTimeout(look, LOOK_MS);
  signal.addEventListener("abort", () => clearTimeout(timer));
}

function elapsed(run) {
  return run.started_at
    ? ((run.ended_at ? new Date(run.ended_at) : new Date()) - new Date(run.started_at)) / 1000
    : null;
}

function tick(body, run) {
  const place = body.querySelector("[data-elapsed]");
  if (place) place.textContent = duration(elapsed(run));
}

function draw(body, run, onCancel) {
  // Drawn anew on every change: what had the focus gets it back.
  const focused = body.contains(document.activeElement) ? document.activeElement.id : null;
  fill(
    body,
    top(run, onCancel),
    nextStep(run),
    h(
      "div",
      { class: "two aside" },
      h("div", { class: "stack" }, steps(run)),
      h("div", { class: "stack" }, chainCard(run), facts(run)),
    ),
  );
  if (focused) document.getElementById(focused)?.focus();
}

function top(run, onCancel) {
  const over = Boolean(run.ended_at);
  const chained = run.chain_runs.length > 1 || run.config.until === "sure";
  const goesOn = !over || underWay(run);
  const links = [
    ["airflow", run.airflow_url, "Airflow"],
    ["mlflow", run.mlflow_url, "MLflow"],
  ].filter(([, url]) => url);
  return head([run.experiment, " ", runPill(run)], {
    crumbs: crumb("Run"),
    lead: `${chained ? `Round ${run.round}. ` : ""}Started ${run.started_by ? `by ${run.started_by}, ` : ""}${dateTime(run.started_at ?? run.queued_at)}`,
    actions: [
      links.map(([id, url, label]) =>
        h(
          "a",
          { class: "button compact", id: `to-${id}`, href: url, target: "_blank", rel: "noopener" },
          `Open in ${label}`,
        ),
      ),
      goesOn &&
        h(
          "button",
          { class: "button danger compact", id: "cancel", type: "button", on: { click: onCancel } },
          chained ? "Cancel the chain" : "Cancel run",
        ),
    ],
  });
}

async function cancel(run, refusal) {
  if (
    !(await confirm(
      run.config.until === "sure" ? "Cancel this chain of rounds?" : "Cancel this run?",
      "The tips it has collected so far are kept; a new run of the same configuration goes on from there.",
      run.config.until === "sure" ? "Cancel the chain" : "Cancel run",
    ))
  )
    return;
  try {
    await api.cancel(run.id);
    fill(refusal);
    announce("The run is being cancelled.");
  } catch (error) {
    fill(refusal, notice("bad", h("strong", null, "The run goes on. "), words(error).join(". ")));
  }
}

/** What the reader can do now, or why it ended. */
function nextStep(run) {
  const encoded = encodeURIComponent(run.experiment);
  const judge = (label) => h("a", { class: "button primary", id: "to-judge", href: `#/judge/${encoded}` }, label);
  const board = `#/${boardPath(run.experiment, { reference: split(run.config.reference) })}`;
  const ranking = (kind) => h("a", { class: `button ${kind}`, id: "to-ranking", href: board }, "See the leaderboard");
  const again = h(
    "a",
    { class: "button", id: "again", href: `#/collect?again=${encodeURIComponent(run.id)}` },
    "Run again",
  );
  const pending = run.progress?.pending ?? 0;
  if (run.state === "failed")
    return h(
      "div",
      { class: "stack tight", role: "alert" },
      notice(
        "bad",
        h("strong", null, "The run failed. "),
        run.reason ?? "No reason was recorded; the task’s log tells more.",
      ),
      h("div", { class: "row" }, again, ranking("")),
    );
  if (run.state === "cancelled")
    return h(
      "div",
      { class: "stack tight" },
      notice("info", "The run was cancelled. What it collected is kept."),
      h("div", { class: "row" }, again, pending > 0 && judge("Judge what is there")),
    );
  const sampling = run.tasks.some((task) => task.task === "await_sample" && task.state === "waiting");
  if (run.state === "waiting" && sampling)
    return h(
      "div",
      { class: "stack tight" },
      notice(
        "info",
        h("strong", null, "The sample is ready to be scored. "),
        `The run goes on when ${split(run.config.reference).join(" and ")} ${split(run.config.reference).length > 1 ? "have" : "has"} scored all of it, each under that name.`,
      ),
      h(
        "div",
        { class: "row" },
        h("a", { class: "button primary", id: "to-judge", href: `#/judge/${encoded}?scope=sample` }, "Score the sample"),
      ),
    );
  if (run.state === "waiting")
    return h(
      "div",
      { class: "stack tight" },
      notice(
        "info",
        h("strong", null, "The tips are ready to be judged. "),
        `The run goes on by itself when every tip has a score${pending ? ` (${count(pending, "cell")} to go)` : ""}.`,
      ),
      h("div", { class: "row" }, judge("Judge the tips")),
    );
  const next = underWay(run);
  if (run.state === "success" && next)
    return h(
      "div",
      { class: "stack tight" },
      notice("info", h("strong", null, "This round is over, and the answer is not sure yet. "), `The chain goes on with round ${next.round}.`),
      h(
        "div",
        { class: "row" },
        h("a", { class: "button primary", id: "to-next", href: `#/run/${encodeURIComponent(next.id)}` }, `Go to round ${next.round}`),
        ranking(""),
      ),
    );
  if (run.state === "success")
    return h("div", { class: "row" }, ranking("primary"), pending > 0 && judge("Judge the tips"), again);
  return run.degraded && notice("warn", run.degraded);
}

/** Is a task worth a line? Rounds are for a race; that a run clears away after itself is news only while it does, or where it failed. */
function tells(task, run) {
  if (task.task === "another_round" || task.task === "next_round") return run.config.until === "sure";
  return task.task !== "clear_away" || task.state === "running" || (task.state === "failed" && run.state !== "cancelled");
}

function steps(run) {
  const groups = [];
  for (const task of run.tasks.filter((one) => tells(one, run))) {
    const last = groups.at(-1);
    if (last && last.name === task.task) last.tasks.push(task);
    else groups.push({ name: task.task, tasks: [task] });
  }
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "steps" },
    h("h2", { id: "steps" }, "Steps"),
    h(
      "ol",
      { class: "plain steps" },
      groups.map((group) => step(group, run)),
    ),
  );
}

function step({ name, tasks }, run) {
  const state = together(tasks.map((task) => task.state));
  const [kind, drawing] = MARKS[state] ?? MARKS.pending;
  const said = state === "pending" && run.ended_at ? "not reached" : IN_WORDS[state];
  const times = tasks.filter((task) => task.started_at);
  const start = times.length ? Math.min(...times.map((task) => new Date(task.started_at))) : null;
  const ended = times.every((task) => task.ended_at) ? Math.max(...times.map((task) => new Date(task.ended_at))) : null;
  const took = start && ended ? duration((ended - start) / 1000) : "";
  const reasons = tasks.filter((task) => task.reason);
  const log = tasks.filter((task) => task.url && task.state === "failed");
  return h(
    "li",
    { class: kind },
    h("span", { class: "mark" }, icon(drawing)),
    h("span", { class: "title" }, TASKS[name] ?? name),
    h("span", { class: "soft small num time" }, took || said),
    h(
      "div",
      { class: "body" },
      h("span", { class: "hidden" }, said),
      name === "collect" && run.progress && lanes(run.progress, tasks),
      reasons.map((task) => h("p", { class: "error" }, tasks.length > 1 && `${task.label}: `, task.reason)),
      log.map((task) =>
        h(
          "p",
          { class: "small" },
          h("a", { href: task.url, target: "_blank", rel: "noopener" }, `Log of ${task.label} in Airflow`),
        ),
      ),
    ),
  );
}

/** The state of a task that stands for several: the worst news first. */
function together(states) {
  for (const state of ["failed", "running", "waiting"]) if (states.includes(state)) return state;
  if (states.every((state) => state === "skipped")) return "skipped";
  return states.every((state) => state === "success" || state === "skipped")
    ? "success"
    : states.includes("success")
      ? "running"
      : "pending";
}

function lanes(progress, tasks) {
  const active = new Set(tasks.filter((task) => task.state === "running").map((task) => task.label));
  return h(
    "div",
    { class: "lanes" },
    progress.models.map((one) => {
      const share = (value) => (one.planned ? value / one.planned : 0);
      const figure = one.refused ? "refused" : `${one.finished} of ${one.planned} cells`;
      return h(
        "div",
        { class: "lane" },
        h(
          "span",
          null,
          h("span", { class: "tag" }, one.model),
          active.has(one.model) && tasks.length > 1 && h("span", { class: "soft small" }, " writes now"),
        ),
        h("span", { class: "soft small num" }, figure),
        !one.refused && meter(`${one.model} collected`, share(one.finished), share(one.failed)),
        one.refused &&
          h("p", { class: "error" }, `The memory policy turned it away: ${one.refused}. The others go on.`),
        one.failed > 0 &&
          h(
            "p",
            { class: "error" },
            `${count(one.failed, "cell")} failed: ${Object.entries(one.failures)
              .map(([reason, n]) => `${n} × ${reason}`)
              .join(", ")}. The rest goes on.`,
          ),
      );
    }),
  );
}

function facts(run) {
  const { progress, config } = run;
  const done = progress ? progress.finished + progress.failed : null;
  const share = progress?.planned ? done / progress.planned : 0;
  const writes = run.tasks.some((task) => task.task === "collect" && (task.state === "running" || task.state === "pending"));
  const collecting = progress && !run.ended_at && done < progress.planned && writes;
  const rows = [
    ["Judge", run.judge],
    ["Prompts", config.prompts],
    ["Scenarios", config.n_scenarios === 0 ? "all" : config.n_scenarios],
    ["Tips each", config.n_tips],
    ["Temperature", config.temperature],
    ["Engine", config.engine],
  ].filter(([, value]) => value !== undefined && value !== null);
  return h(
    "section",
    { class: "card stack", "aria-label": "Progress and configuration" },
    progress &&
      h(
        "div",
        { class: "stack tight" },
        h("p", { class: "soft small" }, "Collected"),
        h("p", { class: "big" }, `${done}`, h("span", { class: "soft" }, ` / ${progress.planned} cells`)),
        meter(
          "Collected",
          progress.planned ? progress.finished / progress.planned : 0,
          progress.planned ? progress.failed / progress.planned : 0,
        ),
        h(
          "p",
          { class: "soft small num" },
          collecting
            ? progress.eta_s === null
              ? "Time left unknown yet"
              : `About ${duration(progress.eta_s)} left`
            : share >= 1
              ? "All cells are there"
              : run.race
                ? "Of the full design; a race may need fewer"
                : "",
        ),
      ),
    h(
      "dl",
      { class: "facts-list" },
      h("dt", null, "Elapsed"),
      h("dd", { data: { elapsed: "" } }, run.started_at ? duration(elapsed(run)) : UNKNOWN),
      rows.map(([term, value]) => [h("dt", null, term), h("dd", null, String(value).split(",").join(", "))]),
    ),
  );
}
