// Pieces that several pages show: notices, states, bars, error and empty pages.

import { ApiError } from "./api.js";
import { attribute, fill, h, s } from "./dom.js";
import { UNKNOWN, percent, steps } from "./format.js";

const ICONS = {
  check: ["m5 12.5 4.5 4.5L19 7.5"],
  cross: ["M6.5 6.5l11 11M17.5 6.5l-11 11"],
  dash: ["M7 12h10"],
  warning: ["M12 4 2.8 19.5h18.4z", "M12 10v4.5M12 17v.2"],
  info: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 11v5.5M12 7.6v.2"],
  turn: ["M12 4a8 8 0 1 1-7.4 5"],
  clock: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 7v5l3.3 2"],
  person: ["M12 4.5a3.7 3.7 0 1 0 0 7.4 3.7 3.7 0 0 0 0-7.4z", "M4.8 20c.8-3.7 3.6-5.3 7.2-5.3s6.4 1.6 7.2 5.3"],
  sun: [
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
    "M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4",
  ],
  moon: ["M20 14.2A8.3 8.3 0 0 1 9.8 4 8.3 8.3 0 1 0 20 14.2z"],
  plug: ["M9 3v5M15 3v5M6.5 8h11v3.5a5.5 5.5 0 0 1-11 0zM12 17v4"],
  list: ["M9.5 7H20M4 12h10M9.5 17H17", "M6.5 5.2v3.6M17 10.2v3.6M6.5 15.2v3.6"],
};

/** A small drawing beside words; screen readers pass over it. */
export function icon(name) {
  const line = {
    fill: "none",
    stroke: "currentColor",
    "stroke-width": 1.8,
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
  };
  return s(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" },
    ICONS[name].map((d) => s("path", { d, ...line })),
  );
}

export function loading() {
  return h("p", { class: "loading" }, "Loading…");
}

/** kind: info, warn, bad or good. */
export function notice(kind, ...content) {
  const drawing = { warn: "warning", bad: "warning", good: "check" }[kind] ?? "info";
  return h("div", { class: `notice ${kind}` }, icon(drawing), h("div", null, ...content));
}

export function pill(kind, text, props = {}) {
  return h("span", { class: `pill ${kind}`, ...props }, text);
}

/** Where one stands, why, and the one thing to do next. */
export function empty(drawing, title, ...content) {
  return h("section", { class: "card empty" }, icon(drawing), h("h2", null, title), ...content);
}

/** A whole page for what went wrong, in words, with a way on. */
export function failure(error, retry) {
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  const [title, detail] = known
    ? words(error)
    : ["The panel made a mistake", `${error.message}. Reload the page; if it stays, report it.`];
  return h(
    "div",
    { role: "alert" },
    h("h1", { class: "hidden" }, title),
    empty(
      known && error.status === 404 ? "info" : "plug",
      title,
      h("p", null, detail, known && error.passing ? " This page tries again by itself." : ""),
      h(
        "div",
        { class: "row" },
        h("button", { class: "button primary", type: "button", on: { click: retry } }, "Try again"),
        h("a", { class: "button", href: "#/" }, "Experiments"),
      ),
    ),
  );
}

/** [title, what to do] of an ApiError. */
export function words(error) {
  if (error.status === 0)
    return [
      "tipbench cannot be reached",
      "The API does not answer. Is it running, and are you still on its network? What is saved stays saved.",
    ];
  return [
    error.title,
    [error.detail, ...error.errors.map((one) => (one.field ? `${one.field}: ${one.message}` : one.message))]
      .filter(Boolean)
      .join(" "),
  ];
}

/** A bar with an accessible name; update(share, failedShare) moves it. */
export function meter(label, share = 0, failed = 0) {
  const done = h("i");
  const lost = h("i", { class: "failed" });
  const element = h(
    "span",
    { class: "meter split", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
    done,
    lost,
  );
  element.update = (now, failedNow = 0) => {
    done.style.width = `${now * 100}%`;
    lost.style.width = `${failedNow * 100}%`;
    attribute(element, "aria-valuenow", Math.round((now + failedNow) * 100));
    attribute(element, "aria-valuetext", percent(now + failedNow));
  };
  element.update(share, failed);
  return element;
}

/** The head of a page: where one is, what it is, what can be done. */
export function head(title, { lead, crumbs, actions } = {}) {
  return h(
    "div",
    { class: "head" },
    h(
      "div",
      null,
      crumbs && h("p", { class: "crumbs" }, crumbs),
      h("h1", null, title),
      lead && h("p", { class: "lead" }, lead),
    ),
    actions && h("div", { class: "row" }, actions),
  );
}

/** The pages of one experiment. */
export function tabs(experiment, active) {
  const encoded = encodeURIComponent(experiment);
  const pages = [
    ["leaderboard", `leaderboard/${encoded}`, "Leaderboard"],
    ["judge", `judge/${encoded}`, "Judge"],
    ["status", `status/${encoded}`, "Status"],
    ["compare", `compare?a=${encoded}`, "Compare"],
  ];
  return h(
    "nav",
    { class: "tabs", "aria-label": experiment },
    pages.map(([name, path, label]) => h("a", { href: `#/${path}`, "aria-current": name === active && "page" }, label)),
  );
}

export function crumb(...steps) {
  return [h("a", { href: "#/" }, "Experiments"), ...steps.flatMap((step) => [" / ", step])];
}

/** A labelled control with its hint and its error; `field.say(text)` shows or clears the error. */
export function field(control, label, { hint } = {}) {
  const name = control.id || control.name;
  control.id = name;
  const error = h("p", { class: "error", id: `${name}-error` });
  const described = [hint && `${name}-hint`, `${name}-error`].filter(Boolean).join(" ");
  attribute(control, "aria-describedby", described);
  const element = h(
    "div",
    { class: "field" },
    h("label", { for: name }, label),
    control,
    hint && h("p", { class: "hint", id: `${name}-hint` }, hint),
    error,
  );
  element.say = (text) => {
    fill(error, text ?? "");
    attribute(control, "aria-invalid", text ? "true" : null);
  };
  return element;
}

/** Ask before something that cannot be undone; resolves to true or false. */
export function confirm(title, detail, verb) {
  return new Promise((resolve) => {
    const close = (answer) => () => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": "confirm-title", on: { cancel: close(false) } },
      h("h2", { id: "confirm-title" }, title),
      h("p", { class: "soft" }, detail),
      h(
        "div",
        { class: "row" },
        h("button", { class: "button", type: "button", on: { click: close(false) } }, "Keep going"),
        h("button", { class: "button danger", type: "button", on: { click: close(true) } }, verb),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Tell something in front of the page, until it is closed; what had the focus gets it back. */
export function tell(title, ...content) {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "tell-title", on: { close: () => dialog.remove() } },
    h("h2", { id: "tell-title" }, title),
    ...content,
    h("div", { class: "row" }, h("button", { class: "button", type: "button", on: { click: () => dialog.close() } }, "Close")),
  );
  document.body.append(dialog);
  dialog.showModal();
}

/** A composite (mark) and its interval (bar) on the rubric's scale. */
export function scaleBar(cell, board, extra = "") {
  if (cell.composite === null) return h("span", { class: "soft" }, UNKNOWN);
  const place = (value) =>
    `${Math.min(100, Math.max(0, ((value - board.scale_min) / (board.scale_max - board.scale_min)) * 100))}%`;
  const known = cell.ci_low !== null && cell.ci_high !== null;
  const words = known ? `95% interval ${cell.ci_low.toFixed(2)} to ${cell.ci_high.toFixed(2)}` : "interval unknown";
  const bar = h("i");
  if (known) {
    bar.style.left = place(cell.ci_low);
    bar.style.width = `calc(${place(cell.ci_high)} - ${place(cell.ci_low)})`;
  }
  return h(
    "span",
    {
      class: `scale ${extra}`,
      role: "img",
      "aria-label": words,
      title: words,
      style: { "--steps": steps(board).length - 1 },
    },
    bar,
    h("b", { style: { left: place(cell.composite) } }),
  );
}

/** The head of a column of scale bars: the scale itself, in figures; `meaning` is for the screen reader and the pointer. */
export function scaleHead(board, meaning) {
  const ticks = steps(board).map((value) => h("span", null, String(value)));
  return [
    h("span", { class: "hidden" }, meaning),
    h("span", { class: "scale-ticks", "aria-hidden": "true", title: meaning }, ticks),
  ];
}

/** A column's title with what it means, for the pointer and for the screen reader. */
export function term(label, meaning) {
  return [h("span", { class: "what", title: meaning }, label), h("span", { class: "hidden" }, ` (${meaning})`)];
}

/** A table in a frame of its own that scrolls sideways. `named` labels the frame; `columns` are the heads, as [class, content]. */
export function table(named, columns, rows, extra = "") {
  return h(
    "div",
    { class: `scroll ${extra}`.trim(), tabindex: 0, role: "region", ...named },
    h(
      "table",
      null,
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          columns.map(([kind, content]) => h("th", { class: kind || null, scope: "col" }, content)),
        ),
      ),
      h("tbody", null, rows),
    ),
  );
}

/** The head of a row of the board; with an experiment it leads to the tips of that row, and `board` says which board that was. */
export function cellHead(cell, experiment = null, board = []) {
  const { model, prompt, variant, row } = cell;
  const lines = [
    h("span", { class: "tag" }, model),
    h("span", { class: "soft" }, prompt, variant && ` · ${variant}`),
    row?.same_tips?.length > 0 && h("span", { class: "same" }, `the same tips as ${row.same_tips.join(", ")}`),
  ];
  const query = new URLSearchParams([["model", model], ["prompt", prompt], ...(row ? [["row", row.id]] : []), ...board]);
  const leads = experiment && row?.current !== false;
  return h(
    "th",
    { class: "left", scope: "row" },
    leads
      ? h("a", { class: "celllink", href: `#/cell/${encodeURIComponent(experiment)}?${query}` }, lines)
      : h("span", { class: "celllink" }, lines),
  );
}

const RUN_STATES = {
  queued: ["", "queued"],
  running: ["live", "collecting"],
  waiting: ["warn", "waits for a judge"],
  success: ["good", "done"],
  failed: ["bad", "failed"],
  cancelled: ["", "cancelled"],
};

/** The state of a run, in a word. */
export function runPill(run) {
  const [kind, text] = RUN_STATES[run.state] ?? ["", run.state];
  return pill(kind, text);
}
