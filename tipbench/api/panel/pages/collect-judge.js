// Who judges a collection, and what each way of judging asks besides.

import { h } from "../dom.js";
import { choice } from "./collect-parts.js";
import { JUDGE_KEYS } from "../state/form.js";

const JUDGES = {
  manual: ["People or agents", "You score in this panel, or an agent does over the API. The run waits."],
  llm: ["A language model", "Another model scores every tip against the rubric. People can score a sample, to correct it."],
  baseline: ["Baseline", "Counts words: shows that the pipeline works, not which tips are good."],
  skip: ["Nobody yet", "Collect only; judge whenever you like."],
};
const LABELS = {
  judge_model: "Judge’s model",
  judge_parallel: "Tips in question at once",
  judge_rationale: "Its sentence of reason",
  sample: "Sample for people",
  sample_tips: "Tips of each cell in it",
  reference: "Who scores the sample",
  judge_timeout_hours: "Wait at most, in hours",
};

/** The section, as {element, show}; `input(name, label, more)` makes a field for a key, `show()` leaves those that apply. */
export function judgeSection(form, input) {
  const modes = form.schema.judge.enum;
  const names = [...new Set([...JUDGE_KEYS.llm, ...JUDGE_KEYS.manual])].filter((name) => name in form.schema);
  const fields = Object.fromEntries(names.map((name) => [name, input(name, LABELS[name], { step: name === "judge_timeout_hours" ? "any" : 1 })]));
  const element = h(
    "fieldset",
    { class: "card", "aria-describedby": "judge-error" },
    h("legend", null, "Who judges?"),
    h(
      "div",
      { class: "choices grid" },
      modes.map((mode) =>
        choice(
          { type: "radio", name: "judge", value: mode, checked: form.values.judge === mode },
          JUDGES[mode]?.[0] ?? mode,
          "",
          JUDGES[mode]?.[1],
        ),
      ),
    ),
    h("div", { class: "fields push-top" }, Object.values(fields)),
  );
  function show() {
    const { judge, sample } = form.values;
    for (const [name, one] of Object.entries(fields)) {
      const ofSample = judge === "llm" && (name === "sample_tips" || name === "reference" || name === "judge_timeout_hours");
      one.hidden = !(JUDGE_KEYS[judge] ?? []).includes(name) || (ofSample && !(Number(sample) > 0) && name !== "reference");
    }
  }
  show();
  return { element, show };
}
