"""The record of a race: its looks are those of the horizon that decides, and two writers leave one record."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.memory_backend import MemoryBackend, memory_store
from tipbench.rounds import record
from tipbench.rounds.record import Back, Member, Order, Race, RecordedDrop, RecordedLook
from tipbench.rounds.standing import _horizon
from tipbench.stats import sequential

pytestmark = pytest.mark.unit

A, B, C = (Member(row=r, model=f"{r}:1b", prompt="v1") for r in "abc")


def look(number: int, rows: str, dropped: str = "", stop: str = "", margin: float = 0.0) -> RecordedLook:
    drops = tuple(RecordedDrop(row=r, why="worse") for r in dropped)
    return RecordedLook(
        number=number, n_scenarios=4 * number, rows=tuple(rows), dropped=drops, stop=stop, margin=margin
    )


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=4),
)
def test_the_record_and_the_horizon_have_the_same_looks(parts: list[tuple[int, int, int]]) -> None:
    orders: list[Order] = []
    for n, block, after in parts:
        ends = Race(tuple(orders), (), (), ()).ends if orders else ()
        names = tuple(f"s{len(orders)}-{i}" for i in range(n))
        orders.append(Order(scenarios=names, block=block, after_looks=min(after, len(ends)) if orders else 0))
    race = Race(tuple(orders), (), (), ())
    assert race.ends == _horizon(race).looks
    assert race.ends[-1] == len(race.scenarios)
    blocks = [race.block_of(s) for s in race.scenarios]
    assert blocks == sorted(blocks)
    assert set(blocks) <= set(range(1, len(race.ends) + 1))


def test_a_race_begins_under_the_newest_rule_and_keeps_its_own() -> None:
    assert record.RULE == sequential.NEWEST
    store = memory_store(MemoryBackend())
    experiment = store.ensure_experiment("tip-bench-rule")
    begun = record.enter(store, experiment, "r" * 64, scenarios=["p", "q"], members=[A], block=1, seed=0)
    assert begun.orders[0].rule == record.RULE
    # An order as it was stored before rules had numbers.
    old = Order.model_validate({"scenarios": ["p", "q"], "block": 1})
    added = Order(scenarios=("r",), block=1, after_looks=1, rule=record.RULE)
    assert _horizon(Race((old, added), (), (), ())).number == 1
    assert _horizon(begun).number == record.RULE


def test_who_left_is_out_until_taken_back() -> None:
    order = Order(scenarios=tuple("pqrstuvwxyz"), block=4)
    race = Race((order,), (A, B, C), (look(1, "abc", "c"),), ())
    assert race.left == {"a", "b"}
    assert race.wanted() == {"a": 8, "b": 8}
    back = Race((order,), (A, B, C), (look(1, "abc", "c"),), (Back(row="c", after_look=1, by="ann"),))
    assert back.wanted() == {"a": 8, "b": 8, "c": 8}


def test_a_race_is_over_until_somebody_comes_in() -> None:
    order = Order(scenarios=tuple("pqrstuvwxyz"), block=4)
    over = Race((order,), (A, B), (look(1, "ab", "b", "one left"),), ())
    assert over.is_over() and over.wanted() == {}
    assert not Race((order,), (A, B, C), over.looks, ()).is_over()
    assert not Race((order,), (A, B), over.looks, (Back(row="b", after_look=1, by="ann"),)).is_over()


def test_a_stop_within_a_margin_holds_for_no_smaller_one() -> None:
    order = Order(scenarios=tuple("pqrstuvwxyz"), block=4)
    race = Race((order,), (A, B), (look(1, "ab", "", "within margin", 0.5),), ())
    assert race.is_over(0.5) and race.is_over(1.0)
    assert not race.is_over(0.3) and not race.is_over(0.0)


def test_two_who_begin_at_once_read_one_order() -> None:
    backend = MemoryBackend()
    one, two = memory_store(backend), memory_store(backend)
    experiment = one.ensure_experiment("tip-bench-two")
    names = [f"s{i}" for i in range(8)]
    first = record.enter(one, experiment, "r" * 64, scenarios=names, members=[A], block=4, seed=0)
    # As if the second had read before the first wrote: another order in the same place.
    two.add_race_event(experiment, "order/0", Order(scenarios=tuple(names), block=2).model_dump(mode="json"))
    second = record.enter(two, experiment, "r" * 64, scenarios=names, members=[B], block=2, seed=7)
    assert second.orders == first.orders
    assert {m.row for m in second.members} == {"a", "b"}
