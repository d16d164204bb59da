// Before judging: the judge's name, and what this browser remembers.

import { h } from "../dom.js";
import { crumb, field, head, tabs } from "../parts.js";
import { judgeFile } from "./judge-file.js";
import { sampleOffer } from "./sample.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}$/;

/** What a judge is given, as the address has it: what nobody has scored says nothing. */
export function searchOf(scope, more = "") {
  const query = [more, scope === "pending" ? "" : `scope=${scope}`].filter(Boolean).join("&");
  return query && `?${query}`;
}

/** The browser's storage; where that is blocked, nothing is remembered, and scores are still saved by the API. */
export const memory = {
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

export function introduction(experiment, scope, { scale_min: low, scale_max: high }, offer, { session, signal, go }) {
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
    return go(`judge/${encodeURIComponent(experiment)}${searchOf(scope)}`, { replace: true });
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
    h("div", { class: "stack narrow push-top" }, sampleOffer(experiment, "", offer, { scope, signal, go }), judgeFile(experiment)),
  );
}
