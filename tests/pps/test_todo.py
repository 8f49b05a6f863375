"""The datums that are left: who holds one gives it back or begins it, and nobody ends before."""

import threading

import pytest

from pachd.pps.datums import Datum
from pachd.pps.todo import Todo

A, B, C = (Datum(id, ()) for id in "abc")


def test_datums_come_in_order_and_end() -> None:
    todo = Todo([A, B])
    assert [todo.take(), todo.take(), todo.take()] == [A, B, None]


def test_one_is_held_only_where_all_workers_have_one() -> None:
    todo = Todo([A, B, C], workers=2)
    assert todo.take() == A
    assert todo.hold() == B
    assert todo.hold() is None
    todo.begin()
    assert [todo.take(), todo.take()] == [C, None]


@pytest.mark.parametrize(("given_back", "expected"), [(True, A), (False, None)])
def test_the_last_one_is_waited_for_while_it_is_held(given_back: bool, expected: Datum | None) -> None:
    todo = Todo([A])
    assert todo.hold() == A
    taken: list[Datum | None] = []
    other = threading.Thread(target=lambda: taken.append(todo.take()), daemon=True)
    other.start()
    assert taken == []
    if given_back:
        todo.give_back(A)
    else:
        todo.begin()
    other.join(120)
    assert taken == [expected]
