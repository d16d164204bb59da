"""What the panel knows, apart from how it is drawn: the judge's queue, the typed digits, the collection form. In a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture
def page(visit: Visit) -> Page:
    """A page of the panel's own origin, so that its modules can be imported."""
    return visit("#/login", log_in=False)


# -- typing a score --------------------------------------------------------------------------------

TYPED = """async ([low, high]) => {
  const { Digits } = await import("./state/queue.js");
  const wrong = [];
  for (let score = low; score <= high; score += 1) {
    const taken = [];
    const digits = new Digits({ scale_min: low, scale_max: high }, (one) => taken.push(one), 1e6);
    for (const key of String(score)) digits.press(key);
    digits.settle();
    if (JSON.stringify(taken) !== JSON.stringify([score])) wrong.push([score, taken]);
  }
  return wrong;
}"""


@pytest.mark.parametrize("scale", [(1, 5), (0, 5), (0, 10), (1, 10), (0, 1), (0, 100), (3, 17), (9, 12)])
def test_every_score_of_a_scale_can_be_typed(page: Page, scale: tuple[int, int]) -> None:
    assert page.evaluate(TYPED, list(scale)) == []


@pytest.mark.parametrize(
    ("scale", "keys", "at_once", "in_the_end"),
    [
        ((1, 5), "35", [3, 5], [3, 5]),  # nothing else begins like these: no waiting
        ((0, 10), "7", [7], [7]),
        ((0, 10), "1", [], [1]),  # a 0 may follow
        ((0, 10), "10", [10], [10]),
        ((0, 10), "17", [1, 7], [1, 7]),  # no score begins with 17
        ((1, 5), "9", [], []),
        ((1, 5), "0", [], []),
        ((0, 5), "0", [0], [0]),
    ],
)
def test_a_digit_waits_only_for_one_that_can_follow(
    page: Page, scale: tuple[int, int], keys: str, at_once: list[int], in_the_end: list[int]
) -> None:
    found = page.evaluate(
        """async ([[low, high], keys]) => {
          const { Digits } = await import("./state/queue.js");
          const taken = [];
          const digits = new Digits({ scale_min: low, scale_max: high }, (one) => taken.push(one), 1e6);
          for (const key of keys) digits.press(key);
          const atOnce = [...taken];
          digits.settle();
          return [atOnce, taken];
        }""",
        [list(scale), keys],
    )
    assert found == [at_once, in_the_end]


# -- the queue -------------------------------------------------------------------------------------

QUEUE = """
const { Queue, Drafts } = await import("./state/queue.js");
const { ApiError } = await import("./api.js");
const kept = new Map();
const storage = {
  getItem: (key) => kept.get(key) ?? null,
  setItem: (key, text) => kept.set(key, text),
  removeItem: (key) => kept.delete(key),
};
const item = (id, scores = null) => ({ id, export_id: "e", scenario: "s", tip: id, scores });
const criteria = ["a", "b"].map((id) => ({ id, name: id.toUpperCase(), question: "?", anchors: [] }));
const sent = [];
const told = [];
const asked = []; // how many scores had been sent at each fetch
let slow = 0;
let refuse = null;
const make = (items, previous = []) => {
  const first = {
    rubric: { scale_min: 0, scale_max: 3, criteria },
    items: items.map((id) => item(id)),
    previous,
    progress: { total: items.length, done: 0, left: items.length, others: 0, pending: items.length },
  };
  const queue = new Queue({
    first,
    scope: "pending",
    drafts: new Drafts(storage, "drafts"),
    fetch: async () => {
      await new Promise((resolve) => setTimeout(resolve, slow));
      asked.push(sent.length);
      return { items: [], progress: queue.progress };
    },
    send: async (one) => {
      if (refuse) throw refuse;
      sent.push([one.id, { ...one.scores }, one.rationale ?? null]);
      return { outcome: "new" };
    },
    changed: (what, detail) => told.push([what, detail]),
    signal: new AbortController().signal,
  });
  queue.begin(first);
  return queue;
};
"""


def queue(page: Page, steps: str) -> Any:
    """What `steps` (JavaScript with `make`, `item`, `sent`, `told`, `kept`) returns."""
    return page.evaluate(f"async () => {{ {QUEUE} {steps} }}")


def test_zero_is_a_score_like_any_other(page: Page) -> None:
    found = queue(
        page,
        """const q = make(["x", "y"]);
        q.score(0, 0);
        const after = [q.active, q.complete(q.item)];
        q.score(1, 0);
        await q.work;
        return [after, sent, q.progress.done, q.progress.left];""",
    )
    assert found == [[1, False], [["x", {"a": 0, "b": 0}, None]], 1, 1]


def test_undo_gives_back_what_was_there_and_nothing_where_nothing_was(page: Page) -> None:
    found = queue(
        page,
        """const q = make(["x"], [{ ...item("p"), scores: { a: 0, b: 2 } }]);
        q.move(-1);
        q.score(0, 3);
        q.undo();
        const back = { ...q.item.scores };
        q.move(1);
        q.score(0, 1);
        q.undo();
        return [back, q.item.id, Object.keys(q.item.scores), q.active];""",
    )
    assert found == [{"a": 0, "b": 2}, "x", [], 0]


def test_the_next_tip_is_one_without_scores_and_counts_do_not_move_their_total(page: Page) -> None:
    found = queue(
        page,
        """const q = make(["x", "y", "z"]);
        const seen = [];
        for (let n = 0; n < 3; n += 1) {
          seen.push(q.item.id);
          q.score(0, n);
          q.score(1, 3 - n);
          await q.work;
          q.flush();
        }
        return [seen, q.item ?? null, q.progress];""",
    )
    assert found == [["x", "y", "z"], None, {"total": 3, "done": 3, "left": 0, "others": 0, "pending": 3}]


def test_the_last_look_is_taken_after_the_last_score_is_saved(page: Page) -> None:
    """However slow an earlier look was: a round that is over, or a file that is done, shows only in an answer that knows of it."""
    found = queue(
        page,
        """slow = 100;
        const q = make(["x", "y", "z"]);
        for (let n = 0; n < 3; n += 1) {
          q.score(0, 1);
          q.score(1, 2);
          q.flush();
        }
        let last;
        while (last !== q.work) await (last = q.work);
        return [sent.length, asked.at(-1)];""",
    )
    assert found == [3, 3]


def test_words_go_with_the_scores(page: Page) -> None:
    """Typed before the last score; for a tip that is saved, before the score that is changed."""
    found = queue(
        page,
        """const q = make(["x", "y"]);
        const { item: x } = q;
        q.explain(x, "  too long ");
        const before = JSON.parse(kept.get("drafts")).x.rationale;
        q.score(0, 1);
        q.score(1, 2);
        await q.work;
        q.move(-1);
        q.explain(x, "rude");
        const idle = [q.waiting, kept.has("drafts")];
        q.score(0, 0);
        await q.work;
        return [before, idle, sent, kept.has("drafts")];""",
    )
    sent = [["x", {"a": 1, "b": 2}, "too long"], ["x", {"a": 0, "b": 2}, "rude"]]
    assert found == ["too long", [0, False], sent, False]


def test_what_the_api_did_not_take_is_sent_on_the_next_visit(page: Page) -> None:
    found = queue(
        page,
        """refuse = new ApiError({ status: 409, title: "no" });
        let q = make(["x", "y"]);
        q.score(0, 1);
        q.score(1, 0);
        await q.work;
        const trouble = told.filter(([what, detail]) => what === "trouble" && detail).length;
        refuse = null;
        q = make(["x", "y"]);
        await q.work;
        return [trouble, sent, q.item.id, kept.has("drafts")];""",
    )
    assert found == [1, [["x", {"a": 1, "b": 0}, None]], "y", False]


# -- the form --------------------------------------------------------------------------------------


def form(page: Page, steps: str, there: list[dict[str, str]] | None = None, **defaults: Any) -> Any:
    """What `steps` (JavaScript with `form` and `row`) returns, on a form with these defaults."""
    known = {"experiment": "tip-bench-auto", "models": "a:1b,b:1b", "prompts": "v1", "n_tips": 5, "pull": False}
    kinds = {"n_tips": "integer", "pull": "boolean"}
    schema = {
        "schema": {"properties": {name: {"type": kinds.get(name, "string")} for name in known | defaults}},
        "defaults": known | defaults,
        "scenarios": [],
        "prompts": there or [{"name": "v1"}],
    }
    return page.evaluate(
        f"""async (schema) => {{
          const {{ CollectionForm }} = await import("./state/form.js");
          const row = (model, installed, more = {{}}) =>
            ({{ model, installed, allowed: true, configured: schema.defaults.models.split(",").includes(model),
               parameters: 1, ...more }});
          const form = new CollectionForm(schema);
          const answer = (...models) => form.answered({{ models, available: true }});
          {steps}
        }}""",
        schema,
    )


def test_the_form_starts_from_what_is_there(page: Page) -> None:
    assert form(page, "answer(row('a:1b', true), row('b:1b', false)); return form.wanted") == ["a:1b"]
    assert form(page, "answer(row('c:1b', true), row('a:1b', false), row('b:1b', false)); return form.wanted") == [
        "c:1b"
    ]
    refused = "row('d:9b', true, { allowed: false })"
    assert form(page, f"answer({refused}, row('c:1b', true)); return form.wanted") == ["c:1b"]
    # Somebody's own choice, an engine that is away, and one that has nothing are left as they are.
    assert form(page, "form.choose('models', 'a:1b', false); answer(row('a:1b', true)); return form.wanted") == ["b:1b"]
    assert form(page, "answer(row('a:1b', false), row('b:1b', false)); return form.wanted") == ["a:1b", "b:1b"]
    away = "form.answered({ models: [row('a:1b', false)], available: false }); return [form.wanted, form.missing]"
    assert form(page, away) == [["a:1b", "b:1b"], []]
    # A second answer does not undo what was ticked after the first.
    later = (
        "answer(row('a:1b', true)); form.add('b:1b'); answer(row('a:1b', true), row('b:1b', false)); return form.wanted"
    )
    assert form(page, later) == ["a:1b", "b:1b"]


def test_a_start_that_would_collect_nothing_has_an_obstacle(page: Page) -> None:
    nothing = "answer(row('a:1b', false), row('b:1b', false)); return [form.missing.length, form.obstacle]"
    assert form(page, nothing) == [2, "None of the chosen models is there, and nothing would be pulled."]
    assert form(page, nothing, pull=True) == [2, ""]
    some = "answer(row('a:1b', true), row('b:1b', false)); form.choose('models', 'b:1b', true); return [form.missing, form.obstacle]"
    assert form(page, some) == [["b:1b"], ""]
    assert form(page, "answer(row('a:1b', true)); form.choose('models', 'a:1b', false); return form.obstacle")
    assert form(page, "answer(row('a:1b', true)); form.choose('prompts', 'v1', false); return form.obstacle")


def test_prompts_that_are_faulty_or_gone_are_named_and_not_ticked(page: Page) -> None:
    there = [{"name": "ours"}, {"name": "v1", "problem": "v1.yaml, line 3: user: ..."}, {"name": "v2"}]
    chosen = "return [[...form.prompts], form.offered.map((p) => [p.name, Boolean(p.problem)])]"
    assert form(page, chosen, there, prompts="v1,v2")[0] == ["v2"]
    # With prompts of one's own, the defaults are not among them.
    assert form(page, chosen, there, prompts="v7")[0] == ["ours", "v2"]
    again = "const again = new CollectionForm(schema, { prompts: 'v2,v9' }); return [[...again.prompts], again.offered.at(-1).name]"
    assert form(page, again, there) == [["v2"], "v9"]


def test_only_what_differs_from_the_servers_defaults_is_sent(page: Page) -> None:
    sent = form(page, "answer(row('a:1b', true)); const key = form.key; form.put('seed', '7'); "
                      "return [form.config(), form.key !== key]", seed="0", num_ctx="2048")  # fmt: skip
    assert sent == [
        {"experiment": "tip-bench-auto", "models": "a:1b", "prompts": "v1", "n_tips": 5, "seed": "7"},
        True,
    ]
    assert form(page, "form.put('n_tips', 'many'); return form.config().n_tips") == "many"  # for the API to refuse


def test_what_belongs_to_another_way_of_judging_is_not_sent(page: Page) -> None:
    defaults = {"judge": "manual", "judge_model": "", "judge_parallel": "", "judge_rationale": "before"}
    defaults |= {"sample": 0, "sample_tips": 0, "reference": "", "judge_timeout_hours": 168, "models": "a:1b"}
    found = page.evaluate(
        """async (defaults) => {
          const { CollectionForm } = await import("./state/form.js");
          const properties = Object.fromEntries(
            Object.entries(defaults).map(([name, value]) => [name, { type: typeof value === "number" ? "integer" : "string" }]),
          );
          const form = new CollectionForm({ schema: { properties }, defaults, scenarios: [], prompts: [], prompts_problem: null });
          const typed = { judge: "llm", judge_model: "openai:m", judge_rationale: "none", sample: "8", reference: "ada", judge_parallel: "4" };
          for (const [name, text] of Object.entries(typed)) form.put(name, text);
          const llm = form.config();
          form.put("judge", "manual");
          return [llm, form.config()];
        }""",
        defaults,
    )
    llm, manual = ({k: v for k, v in one.items() if k not in ("models", "prompts")} for one in found)
    assert llm == {
        "judge": "llm",
        "judge_model": "openai:m",
        "judge_rationale": "none",
        "judge_parallel": "4",
        "sample": 8,
        "reference": "ada",
        "judge_timeout_hours": 168,
    }
    assert manual == {"judge": "manual", "judge_model": "openai:m", "judge_timeout_hours": 168}
