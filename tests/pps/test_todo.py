"""The datums that are left: who holds some gives them back or begins them, and nobody ends before."""

import threading

import pytest

from pachd.pps.datums import Datum
from pachd.pps.todo import Todo

A, B, C, D, E = (Datum(id, ()) for id in "abcde")


def test_datums_come_in_order_and_end() -> None:
    todo = Todo([A, B])
    assert [todo.take(), todo.take(), todo.take()] == [A, B, None]
    assert todo.hold(3) == []


def test_who_holds_many_leaves_some_for_the_others() -> None:
    todo = Todo([A, B, C, D, E], workers=2)
    assert todo.hold(64) == [A, B]
    assert todo.hold(64) == [C]
    todo.settle(2, [B])
    assert todo.hold(1) == [B]
    todo.settle(2)
    assert [todo.take(), todo.take(), todo.take()] == [D, E, None]


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("back", [[A, B], []])
def test_the_last_ones_are_waited_for_while_they_are_held(back: list[Datum], holds: bool) -> None:
    todo = Todo([A, B])
    assert todo.hold(2) == [A]
    assert todo.hold(1) == [B]
    taken: list[object] = []
    other = threading.Thread(target=lambda: taken.append(todo.hold(9) if holds else todo.take()), daemon=True)
    other.start()
    assert taken == []
    todo.settle(2, back)
    other.join(120)
    assert not other.is_alive()
    assert taken == ([back[:1]] if holds else [*back[:1]] or [None])
