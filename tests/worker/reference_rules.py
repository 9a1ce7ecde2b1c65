"""The rules for single tokens in plain torch, over lists, as vLLM's documentation words them."""

import torch
from torch import Tensor

from octavo.v1 import step_pb2


def reference_logits(
    logits: Tensor, added: step_pb2.AddedRow, prompt: list[int], output: list[int]
) -> Tensor:
    """Return the logits, float32 [vocab_size], that temperature is applied to."""
    sampling = added.sampling
    logits = logits.clone()
    if sampling.allowed_token_ids:
        for token in range(len(logits)):
            if token not in sampling.allowed_token_ids:
                logits[token] = -torch.inf
    for word in added.bad_words:
        *prefix, last = word.ids
        ending = output[len(output) - len(prefix) :] if len(prefix) <= len(output) else None
        if ending == prefix:
            logits[last] = -torch.inf
    if len(output) < added.min_tokens:
        for token in added.stop_token_ids:
            logits[token] = -torch.inf
    for token, bias in zip(sampling.logit_bias_token_ids, sampling.logit_bias_values, strict=True):
        logits[token] += bias
    if sampling.HasField("repetition_penalty"):
        for token in {*prompt, *output}:
            if logits[token] > 0:
                logits[token] /= sampling.repetition_penalty
            else:
                logits[token] *= sampling.repetition_penalty
    for token in set(output):
        logits[token] -= sampling.frequency_penalty * output.count(token)
        logits[token] -= sampling.presence_penalty
    return logits
