"""The rules as a device applies them, against the rules as documentation words them."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.v1 import scheduling_pb2, step_pb2
from octavo.worker.device_penalties import DevicePenalties
from octavo.worker.device_rows import DeviceRows
from octavo.worker.device_stream import HostStream
from octavo.worker.rows import RowLimits, Rows
from octavo.worker.sampled_rows import SampledRows
from tests.worker.any_requests import VOCAB_SIZE, requests
from tests.worker.reference_rules import reference_logits

LIMITS = RowLimits(
    num_rows=3,
    max_model_len=64,
    block_size=4,
    num_blocks=(4,),
    vocab_size=VOCAB_SIZE,
    max_num_batched_tokens=8,
)
OUTPUT = st.lists(st.integers(0, 12), max_size=12)
CPU = torch.device("cpu")


class RowsWithRules:
    """Rows that are sampled together, and added again with other rules."""

    def __init__(self) -> None:
        self.rows = Rows(LIMITS)
        self.device_rows = DeviceRows(LIMITS, CPU, poison=True)
        self.penalties = DevicePenalties(self.rows, self.device_rows, HostStream())

    def add(self, row: int, added: step_pb2.AddedRow, prompt: list[int], output: list[int]) -> None:
        added.row = row
        added.num_prompt_tokens = len(prompt)
        self.rows.sampling.set(added)
        tokens = torch.tensor(prompt + output, dtype=torch.int32)
        self.device_rows.token_ids[row, : len(tokens)] = tokens
        self.device_rows.num_tokens[row] = len(tokens)
        self.device_rows.num_prompt_tokens[row] = len(prompt)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), requests(), OUTPUT, st.booleans()), min_size=1, max_size=6
    ),
    st.integers(0, 2**31),
)
def test_rules_do_what_they_say_whichever_the_row_had_before(
    asked: list[tuple[int, scheduling_pb2.SubmitRequest, list[int], bool]], seed: int
) -> None:
    with_rules = RowsWithRules()
    generator = torch.Generator().manual_seed(seed)
    for row, request, output, is_forked in asked:
        prompt = list(request.prompt_token_ids)
        added = step_pb2.AddedRow(
            sampling=request.sampling,
            min_tokens=request.min_tokens,
            stop_token_ids=request.stop_token_ids,
            bad_words=request.bad_words,
        )
        with_rules.add(row, added, prompt, output)
        # A row that is forked has its rules, and for tokens those of its source.
        rows = np.array([row, (row + 1) % 3] if is_forked else [row])
        for forked in rows[1:]:
            with_rules.rows.sampling.fork(row, forked)
        sampled = SampledRows(rows, np.full(len(rows), row), np.zeros(len(rows), np.intp), 1)
        logits = torch.randn(VOCAB_SIZE, generator=generator)
        actual = logits.repeat(len(rows), 1)
        has_rules = with_rules.penalties.apply(actual, sampled)
        expected = reference_logits(logits, added, prompt, output)
        torch.testing.assert_close(actual, expected.expand_as(actual))
        assert has_rules or torch.equal(expected, logits)


def test_a_row_without_a_largest_logit_is_still_one_afterwards() -> None:
    with_rules = RowsWithRules()
    added = step_pb2.AddedRow()
    added.sampling.allowed_token_ids.append(3)
    added.sampling.repetition_penalty = 1.5
    with_rules.add(1, added, [4], [5])
    logits = torch.randn(1, VOCAB_SIZE)
    logits[0, 50] = torch.nan
    row = np.array([1])
    assert with_rules.penalties.apply(logits, SampledRows(row, row, np.array([0]), 1))
    assert logits.amax().isnan()
