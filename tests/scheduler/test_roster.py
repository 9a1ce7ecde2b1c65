"""Rosters: a plan's columns from them, and when steps share one."""

from octavo.scheduler.roster import Roster
from octavo.scheduler.running_set import RunningSet
from octavo.v1 import step_pb2
from tests.scheduler.test_outputs import sequence_of


def test_a_plan_lets_every_row_have_its_next_token() -> None:
    running = RunningSet(300)
    sequences = [sequence_of(b"r", index.to_bytes(16, "big")) for index in range(300)]
    for sequence in sequences:
        running.add(sequence)
    plan = Roster(sequences[::-1]).plan()
    ones = [1] * 300
    rows = [*reversed(range(300))]
    assert plan == step_pb2.StepPlan(row=rows, num_new_tokens=ones, needs_sample=ones)


def test_steps_share_a_roster_until_somebody_joins_or_leaves() -> None:
    running = RunningSet(4)
    first, second = (sequence_of(b"r", bytes([index]) * 16) for index in range(2))
    first.order, second.order = (0, 1, 0), (0, 2, 0)
    running.add(second)
    alone = running.coasting_and([second])
    assert running.coasting_and([second]) is alone
    running.add(first)
    both = running.coasting_and([second, first])
    assert (both.sequences, both.rows) == ([first, second], [1, 0])
    assert running.coasting_and([first]).sequences == [first]
    assert running.coasting_and([first, second]) is both
    running.remove(second)
    assert running.coasting_and([first]).sequences == [first]
    assert (alone.sequences, alone.rows) == ([second], [0]), "a roster is no view"
