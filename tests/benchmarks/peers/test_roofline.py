"""benchmarks.peers.roofline: known numbers of SmolLM2-135M on two Zen 4 cores."""

import pytest

from benchmarks.peers.roofline import Roofline
from benchmarks.peers.workloads import WORKLOADS, OfflineWorkload
from octavo.worker.models.config import ModelConfig

SMOLLM2 = ModelConfig(
    hidden_size=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=49152,
    rms_norm_eps=1e-5,
    rope_theta=1e5,
    rope_scaling=None,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    eos_token_ids=(2,),
)


def test_the_weights_of_smollm2_are_counted() -> None:
    assert Roofline(SMOLLM2, 1, 1).num_layer_weights() == 106_168_320


@pytest.mark.parametrize(("name", "expected"), [("W1", 882), ("W3", 1417), ("W6", 967)])
def test_ceilings_agree_with_those_worked_out_by_hand(name: str, expected: float) -> None:
    workload = WORKLOADS[name]
    assert isinstance(workload, OfflineWorkload)
    limit = Roofline(SMOLLM2, 472e9, 46.5e9).output_tokens_per_s(workload)
    assert limit == pytest.approx(expected, rel=0.03)


def test_one_stream_is_bound_by_reading_the_weights() -> None:
    stream = OfflineWorkload(name="W", num_requests=1, input_len=0, output_len=1)
    limit = Roofline(SMOLLM2, 1e15, 46.5e9).output_tokens_per_s(stream)
    assert limit == pytest.approx(46.5e9 / (2 * 134.5e6), rel=0.01)
    eight_bits = Roofline(SMOLLM2, 1e15, 46.5e9, bytes_per_weight=1)
    assert eight_bits.output_tokens_per_s(stream) == pytest.approx(2 * limit)
