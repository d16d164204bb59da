// What a judge sees when nothing is left to hand out: why, and what to do next.

import { h } from "../dom.js";
import { count } from "../format.js";
import { empty } from "../parts.js";
import { boardPath } from "../state/board.js";

/** For a queue without a tip in view; `sheet` tells the experiment, the judge and the scope. */
export function finished(queue, { experiment, judge, scope, go }) {
  const encoded = encodeURIComponent(experiment);
  const { pending, done, total } = queue.progress;
  const { race } = queue;
  const ranking = h("a", { class: "button primary", href: `#/${boardPath(experiment)}` }, "See the leaderboard");
  const second =
    scope === "pending" &&
    h("a", { class: "button", href: `#/judge/${encoded}?scope=all` }, "Give a second opinion on the others’ tips");
  const back =
    queue.items.length > 0 &&
    h("button", { class: "button", type: "button", on: { click: () => queue.move(-1) } }, "Look back");
  const again = h(
    "button",
    { class: "button", type: "button", on: { click: () => go(location.hash.replace(/^#\/?/, "")) } },
    "Look for more",
  );
  if (scope === "sample" && total)
    return empty(
      "check",
      "You have scored the sample",
      h("p", null, "Thank you. The board can now say what you would have said of everything."),
      h(
        "div",
        { class: "row" },
        h(
          "a",
          { class: "button primary", href: `#/${boardPath(experiment, { reference: [judge] })}` },
          "See your leaderboard",
        ),
        back,
      ),
    );
  if (race && !race.over && total)
    return empty(
      "clock",
      pending > 0 ? "Nothing is left for you in this round" : `Round ${race.round > 1 && !race.judged ? race.round - 1 : race.round} is scored`,
      h("p", null, "The next round’s tips come here when they are written. The decision is not made yet."),
      h("div", { class: "row" }, again, back),
    );
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
