"""benchmarks.gpu_check: workloads are those that others measured with; floors can be recomputed."""

import pytest

from benchmarks.gpu_check.models import LLAMA_8B, QWEN3_600M
from benchmarks.gpu_check.probes import Ceilings
from benchmarks.gpu_check.workloads import floor_s, nano_vllm, same, sharegpt

H200 = Ceilings(bytes_per_s=4.3e12, flops_per_s=790e12)


def test_models_have_the_weights_that_their_names_say() -> None:
    assert LLAMA_8B.num_layer_weights == pytest.approx(6.979e9, rel=1e-3)
    assert LLAMA_8B.num_weights == pytest.approx(7.504e9, rel=1e-3)
    assert LLAMA_8B.kv_bytes_per_token(2) == 128 * 1024
    assert QWEN3_600M.num_weights == pytest.approx(0.596e9, rel=1e-2)
    assert QWEN3_600M.kv_bytes_per_token(2) == 112 * 1024


@pytest.mark.parametrize(
    ("batch", "context", "milliseconds"), [(1, 512, 3.51), (64, 1024, 5.49), (256, 1024, 12.9)]
)
def test_a_step_takes_at_least_what_reading_and_multiplying_take(
    batch: int, context: int, milliseconds: float
) -> None:
    """One output token after a context whose own computation is taken off again."""
    workload = same(batch, context, 1)
    prefill_s = batch * context * 2 * LLAMA_8B.num_layer_weights / H200.flops_per_s
    step_s = floor_s(workload, LLAMA_8B, 256, H200, 2) - prefill_s
    assert 1e3 * step_s == pytest.approx(milliseconds, rel=0.01)


def test_outputs_that_do_not_fit_at_once_take_more_steps() -> None:
    few = floor_s(same(64, 1, 100), LLAMA_8B, 64, H200, 2)
    half = floor_s(same(64, 1, 100), LLAMA_8B, 32, H200, 2)
    assert half == pytest.approx(2 * few, rel=0.1)


def test_lengths_are_those_of_the_benchmarks_they_are_named_after() -> None:
    nano = nano_vllm()
    assert len(nano.lengths) == 256
    assert all(100 <= length <= 1024 for lengths in nano.lengths for length in lengths)
    conversations = sharegpt(1000)
    assert conversations.num_input_tokens / 1000 == pytest.approx(202, rel=0.1)
    assert conversations.num_output_tokens / 1000 == pytest.approx(179, rel=0.1)


def test_prompts_are_of_the_lengths_and_the_same_every_time() -> None:
    workload = same(3, 5, 1)
    prompts = workload.prompts(100)
    assert [len(prompt) for prompt in prompts] == [5, 5, 5] and prompts == workload.prompts(100)
    assert len({tuple(prompt) for prompt in prompts}) == 3
    assert all(2 <= token < 100 for prompt in prompts for token in prompt)
