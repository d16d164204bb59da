// The ranking of one experiment: who leads, how sure that is, what it costs, and whether the judges can be trusted.

import { api } from "../api.js";
import { attribute, drawing, fill, h } from "../dom.js";
import { UNKNOWN, bytes, chance, dateTime, interval, number, pValue, percent, signed } from "../format.js";
import { cellHead, crumb, empty, head, notice, pill, scaleBar, table, tabs, term } from "../parts.js";

export async function leaderboardPage({ parts: [experiment], signal }) {
  const [board, agreement] = await Promise.all([
    api.leaderboard(experiment, signal),
    api.agreement(experiment, signal),
  ]);
  const judged = board.cells.filter((cell) => cell.composite !== null);
  const content = h("div", { class: "stack" });
  fill(
    content,
    h(
      "div",
      null,
      head(experiment, { crumbs: crumb("Leaderboard"), actions: judged.length ? downloads(experiment) : null }),
      tabs(experiment, "leaderboard"),
    ),
    judged.length ? ranking(board, judged, agreement, experiment, signal) : nothingJudged(board, experiment),
  );
  return { title: `Leaderboard of ${experiment}`, content };
}

function nothingJudged(board, experiment) {
  if (!board.cells.length) {
    return empty(
      "list",
      "Nothing has been collected yet",
      h("p", null, "Run a collection; its tips are then judged and ranked here."),
      h(
        "a",
        { class: "button primary", href: `#/collect?experiment=${encodeURIComponent(experiment)}` },
        "Run collection",
      ),
    );
  }
  const tips = board.cells.reduce((sum, cell) => sum + cell.n_candidates, 0);
  return [
    empty(
      "person",
      "Nothing has been judged yet",
      h(
        "p",
        null,
        `${tips} tips are waiting. Score them blind, one at a time; the ranking appears with the first scores.`,
      ),
      h("a", { class: "button primary", href: `#/judge/${encodeURIComponent(experiment)}` }, "Judge the tips"),
    ),
    problems(board),
  ];
}

function ranking(board, judged, agreement, experiment, signal) {
  return [
    answer(board, judged, experiment),
    rankingTable(board, judged, experiment),
    charts(experiment, signal),
    h("div", { class: "two" }, judges(board, agreement, experiment), criteria(board, judged, experiment)),
    problems(board),
    method(board),
  ];
}

/** The answer in a sentence, no surer than the data, and what to know before trusting it. */
function answer(board, judged, experiment) {
  const baseline = board.judges.length > 0 && board.judges.every((judge) => judge.kind === "baseline");
  const judge = h("a", { href: `#/judge/${encodeURIComponent(experiment)}` }, "Judge the tips yourself");
  return h(
    "div",
    { class: "stack tight" },
    h("p", { class: "headline" }, headline(board, judged)),
    baseline &&
      notice(
        "warn",
        h("strong", null, "These scores come from the baseline judge, which counts words. "),
        "They show that the pipeline works, not which tips are good. ",
        judge,
        ".",
      ),
    board.warnings.filter((text) => !(baseline && text.includes("baseline"))).map((text) => notice("warn", text)),
  );
}

function headline(board, [best, ...others]) {
  const name = (cell) => [
    h("strong", { class: "tag" }, cell.model),
    " with ",
    h("strong", { class: "tag" }, cell.prompt),
  ];
  const lead = [name(best), ` leads with ${number(best.composite)} of ${board.scale_max}`];
  const tied = others.filter((cell) => cell.tied_with_best).length;
  const unknown = others.filter((cell) => cell.tied_with_best === null).length;
  if (!others.length)
    return ["Only one cell was judged: ", name(best), `, ${number(best.composite)} of ${board.scale_max}.`];
  if (unknown === others.length) return [lead, ", but with fewer than two scenarios nothing can be said about chance."];
  if (!tied) return [lead, ", ahead of all others by more than chance."];
  if (tied === others.length)
    return ["No clear winner: ", lead, ", and every other cell is statistically tied with it."];
  return [
    lead,
    `; ${tied} other${tied > 1 ? "s are" : " is"} statistically tied with it, ${others.length - tied - unknown} clearly behind.`,
  ];
}

function rankingTable(board, judged, experiment) {
  const rest = board.cells.filter((cell) => cell.composite === null);
  const tied = judged.filter((cell) => cell.rank === 1 || cell.tied_with_best);
  const behind = judged.filter((cell) => !tied.includes(cell));
  const ticks = Array.from({ length: board.scale_max - board.scale_min + 1 }, (_, i) =>
    h("span", null, String(board.scale_min + i)),
  );
  const columns = [
    ["left", term("Rank", "with its 95% interval")],
    ["left", "Model and prompt"],
    ["", term("Composite", "weighted mean of the criteria, mean over scenarios")],
    [
      "left",
      [
        h("span", { class: "hidden" }, "Composite with its interval on the scale"),
        h("span", { class: "scale-ticks", "aria-hidden": "true" }, ticks),
      ],
    ],
    [
      "wide",
      term(
        "To the leader",
        "difference paired by scenario; p pays for the number of cells and for the leader having been chosen by looking",
      ),
    ],
    ["wide", term("P(best)", "how often the cell came first when the scenarios were drawn anew")],
    ["wide", term("Judged", "judged tips, of those the design asked for")],
    ["wide", "Tokens/s"],
    ["wide", "Memory"],
    ["wide left", term("Trade-off", "on the front: no other cell is at least as good in quality, speed and memory")],
  ];
  const group = (text, cells, kind) =>
    cells.length
      ? [
          h("tr", { class: `group ${kind}` }, h("th", { colspan: columns.length, scope: "rowgroup" }, text)),
          cells.map((cell) => row(cell, board, experiment, kind)),
        ]
      : [];
  return h(
    "section",
    { class: "card", "aria-labelledby": "ranking" },
    h("h2", { id: "ranking" }, "Ranking"),
    table(
      { "aria-labelledby": "ranking" },
      columns,
      [
        group(tied.length > 1 ? "Tied for first: the differences could be chance" : "First", tied, "lead"),
        group(tied.length ? "Behind by more than chance" : "", behind, "behind"),
        group("Not judged", rest, "rest"),
      ],
      "bleed",
    ),
  );
}

function row(cell, board, experiment, kind) {
  return h(
    "tr",
    { class: kind === "lead" ? "tied" : null },
    h(
      "td",
      { class: "rank" },
      cell.composite === null
        ? UNKNOWN
        : [
            h("b", null, String(cell.rank)),
            " ",
            cell.rank_low !== null && h("span", { class: "soft small" }, `${cell.rank_low}–${cell.rank_high}`),
          ],
    ),
    cellHead(cell, experiment),
    h("td", null, h("strong", null, number(cell.composite))),
    h("td", { class: "left" }, scaleBar(cell, board)),
    h(
      "td",
      { class: "wide" },
      cell.rank === 1
        ? h("span", { class: "soft" }, "leader")
        : [
            signed(cell.diff_to_best.value),
            h("span", { class: "soft small" }, ` ${pValue(cell.diff_to_best.p_adjusted)}`),
          ],
    ),
    h("td", { class: "wide" }, chance(cell.p_best)),
    h(
      "td",
      { class: "wide" },
      percent(cell.coverage),
      cell.n_failed ? h("span", { class: "error" }, ` ${cell.n_failed} failed`) : null,
    ),
    h("td", { class: "wide" }, number(cell.tokens_per_s, 0)),
    h("td", { class: "wide" }, bytes(cell.peak_memory_bytes)),
    h(
      "td",
      { class: "wide left" },
      cell.pareto
        ? pill("good bare", "on the front")
        : h("span", { class: "soft" }, cell.pareto === null ? UNKNOWN : "beaten"),
    ),
  );
}

/** The API draws it with matplotlib; its place is kept until it is ready, and given up when there is nothing to draw. */
function charts(experiment, signal) {
  const figure = h(
    "figure",
    { class: "figure awaited", tabindex: 0, role: "group", "aria-labelledby": "tradeoff" },
    h("p", { class: "loading" }, "Drawing…"),
  );
  const section = h(
    "section",
    { class: "card", "aria-labelledby": "tradeoff" },
    h("h2", { id: "tradeoff" }, "Quality against cost"),
    figure,
  );
  api.plot(experiment, "tradeoff", signal).then(
    (text) => {
      if (!text) return void section.remove();
      const svg = drawing(text);
      attribute(svg, "role", "img");
      attribute(
        svg,
        "aria-label",
        "Composite against tokens per second and against peak memory. The same figures stand in the ranking table.",
      );
      fill(
        figure,
        svg,
        h(
          "figcaption",
          { class: "figcaption" },
          "Numbers are ranks. Filled marks are on the front of quality, speed and memory together: choosing another cell would give something up. The dashed line is the front of that panel alone.",
        ),
      );
      attribute(figure, "class", "figure");
    },
    () => section.remove(), // the table says the same
  );
  return section;
}

function judges(board, agreement, experiment) {
  const weak = agreement.alpha.filter((one) => one.weak);
  const steady = Object.fromEntries(agreement.consistency.map((one) => [one.judge, one.exact]));
  const lenient = Object.fromEntries(agreement.leniency.map((one) => [one.judge, one.mean_difference]));
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "judges" },
    h("h2", { id: "judges" }, "Can the judges be trusted?"),
    weak.length > 0 &&
      notice(
        "warn",
        h("strong", null, "The judges agree weakly"),
        ` on ${weak.map((one) => one.criterion).join(", ")}. Trust the ranking less, and see which anchors they read differently.`,
      ),
    table(
      { "aria-label": "Judges" },
      [
        ["left", "Judge"],
        ["", "Tips"],
        ["", "Mean"],
        ["", term("Lenient", "mean difference to the other judges on the same tips")],
        ["", term("Steady", "share of scores given alike when the same tip came twice")],
      ],
      board.judges.map((judge) =>
        h(
          "tr",
          null,
          h(
            "th",
            { class: "left", scope: "row" },
            h("span", { class: "celllink" }, h("span", null, judge.name), h("span", { class: "soft" }, judge.kind)),
          ),
          h("td", null, String(judge.n_judged)),
          h("td", null, number(judge.mean)),
          h("td", null, signed(lenient[judge.name])),
          h("td", null, percent(steady[judge.name] ?? judge.self_consistency)),
        ),
      ),
    ),
    agreement.alpha.length
      ? h(
          "dl",
          { class: "facts-list" },
          agreement.alpha.map((one) => [
            h("dt", null, `Agreement on ${one.criterion}`),
            h(
              "dd",
              null,
              number(one.alpha),
              h("span", { class: "soft small" }, one.ci_low === null ? "" : ` (${interval(one.ci_low, one.ci_high)})`),
              " ",
              one.weak ? pill("warn", "weak") : one.alpha === null ? "" : pill("good", "fair"),
            ),
          ]),
        )
      : h(
          "p",
          { class: "soft small" },
          "Agreement needs a second judge. ",
          h("a", { href: `#/judge/${encodeURIComponent(experiment)}` }, "Judge the same tips under another name"),
          ".",
        ),
    agreement.alpha.length > 0 &&
      h(
        "p",
        { class: "soft small" },
        "Krippendorff’s ordinal alpha: 1 is agreement, 0 is chance, below 0.667 is weak.",
      ),
  );
}

function criteria(board, judged, experiment) {
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "criteria" },
    h("h2", { id: "criteria" }, "Criteria, one by one"),
    table(
      { "aria-labelledby": "criteria" },
      [
        ["left", "Model and prompt"],
        ...board.criteria.map((name) => [
          "",
          [name, h("br"), h("span", { class: "soft" }, percent(board.weights[name]))],
        ]),
        ["", "Words"],
        ["", term("Flagged", "tips that are empty, refuse, leak the prompt, repeat, run too long or were cut off")],
      ],
      judged.map((cell) =>
        h(
          "tr",
          null,
          cellHead(cell, experiment),
          board.criteria.map((name) => h("td", null, number(cell[name]))),
          h("td", null, number(cell.mean_words, 0)),
          h("td", null, String(Object.values(cell.checks).reduce((a, b) => a + b, 0))),
        ),
      ),
    ),
  );
}

function problems(board) {
  const failed = board.cells.filter((cell) => cell.n_failed);
  if (!failed.length && !board.refused.length) return null;
  return h(
    "section",
    { class: "card stack tight" },
    h("h2", null, "What is missing"),
    board.refused.map((one) => notice("info", h("strong", null, "Refused by the memory policy: "), one.reason, ".")),
    failed.map((cell) =>
      notice(
        "bad",
        h("strong", null, `${cell.model} with ${cell.prompt}: `),
        `${cell.n_failed} of its scenarios failed (${Object.entries(cell.failures)
          .map(([reason, n]) => `${n} × ${reason}`)
          .join(", ")}).`,
      ),
    ),
  );
}

function method(board) {
  const entries = Object.entries(board.receipt);
  return h(
    "section",
    { class: "card stack tight" },
    h("h2", null, "Method and receipt"),
    h(
      "p",
      { class: "soft" },
      "A tip’s score is the mean over judges, a scenario’s the mean over its tips, a cell’s the mean over its scenarios. ",
      board.method,
      " Judges saw tips in shuffled order, without models or prompts.",
    ),
    h(
      "details",
      null,
      h("summary", null, `Rubric ${board.rubric_name}, versions and digests that reproduce this`),
      h(
        "dl",
        { class: "facts-list left small" },
        [
          ["compared", dateTime(board.created_at)],
          ["rubric hash", board.rubric_hash],
          ["bootstrap seed", String(board.seed)],
          ...entries,
        ].map(([key, value]) => [h("dt", null, key), h("dd", null, value)]),
      ),
    ),
  );
}

function downloads(experiment) {
  const kinds = [
    ["html", "Report"],
    ["csv", "CSV"],
    ["md", "Markdown"],
    ["json", "JSON"],
  ];
  return kinds.map(([kind, label]) =>
    h(
      "a",
      { class: "button compact", href: api.download(experiment, kind), download: `${experiment}.${kind}` },
      h("span", { class: "hidden" }, "Download "),
      label,
    ),
  );
}
