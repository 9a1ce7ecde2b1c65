"""The most output tokens a second that the measured limits of the machine leave to a workload.

A step computes or reads its weights, whichever takes longer, then the same of its KV; all requests
decode side by side, after all prompts. What a real engine does besides is not counted.
"""

from dataclasses import dataclass

from octavo.worker.models.config import ModelConfig

from .workloads import OfflineWorkload


@dataclass(frozen=True, slots=True)
class Roofline:
    """A decoder on a machine; FLOP are 2 for each multiply-add, KV is bfloat16."""

    config: ModelConfig
    flops: float
    bytes_per_s: float
    bytes_per_weight: float = 2.0

    def output_tokens_per_s(self, workload: OfflineWorkload) -> float:
        count, prompt = workload.num_requests, workload.input_len
        seconds = self._prefill_s(workload.common_len + count * prompt, prompt)
        for i in range(workload.output_len):
            context = workload.common_len + prompt + i
            seconds += self._step_s(count, context)
        return count * workload.output_len / seconds

    def num_layer_weights(self) -> int:
        c = self.config
        attention = c.hidden_size * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
        return c.num_layers * (attention + 3 * c.hidden_size * c.intermediate_size)

    def _prefill_s(self, num_tokens: int, prompt_len: int) -> float:
        products = 2 * self.num_layer_weights() * num_tokens
        return (products + num_tokens * prompt_len / 2 * self._attention_flops()) / self.flops

    def _step_s(self, batch: int, context: int) -> float:
        c = self.config
        num_weights = self.num_layer_weights() + c.hidden_size * c.vocab_size
        kv_bytes = 2 * 2 * c.num_layers * c.num_kv_heads * c.head_dim
        weights_s = max(
            num_weights * self.bytes_per_weight / self.bytes_per_s,
            2 * num_weights * batch / self.flops,
        )
        kv_s = max(
            batch * context * kv_bytes / self.bytes_per_s,
            batch * context * self._attention_flops() / self.flops,
        )
        return weights_s + kv_s

    def _attention_flops(self) -> float:
        """Return those of one new token for each position that it attends to."""
        return 4.0 * self.config.num_layers * self.config.num_heads * self.config.head_dim
