"""The rules of single tokens (logits_rules.py) where a device applies them: a row's in a row.

All rows' rules lie in tensors with room for the longest lists that any row has had; a longer one
makes them larger. Which rows of a step have rules the host knows; which tokens these have, it does
not, and nothing here waits for that.
"""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.penalties import KnownTokens, Penalties, apply_penalties

from .device_rows import DeviceRows
from .device_stream import DeviceStream
from .logits_rules import LogitsRules
from .rows import Rows
from .sampled_rows import SampledRows

Numbers = NDArray[np.int32]

_NONE = -1
_BITS = 32


class DevicePenalties:
    """The rules of all rows, on the device once they are first needed."""

    def __init__(self, rows: Rows, device_rows: DeviceRows, stream: DeviceStream) -> None:
        self._rows = rows
        self._stream = stream
        self._known = KnownTokens(
            token_ids=device_rows.token_ids,
            num_prompt_tokens=device_rows.num_prompt_tokens,
            num_tokens=device_rows.num_tokens,
        )
        # What the device has, by row.
        self._kept: dict[int, LogitsRules] = {}
        self._penalties = _empty(rows.limits.num_rows, rows.limits.vocab_size, self._device)

    def apply(self, logits: Tensor, sampled: SampledRows) -> bool:
        """Apply the rules of the rows that have some; return whether there is any.

        Args:
            logits: float32 [num_sampled, vocab_size].
        """
        (places,) = np.nonzero(self._rows.sampling.has_rules[sampled.rows])
        if not len(places):
            return False
        # A row that is forked in this step has its source's rules, and as yet its tokens.
        sources = sampled.sources[places]
        for row in sources.tolist():
            self._keep(row)
        indices = np.concatenate((places, sources)).astype(np.int32)
        on_device, rows = self._stream.upload(indices).chunk(2)
        apply_penalties(logits, on_device, rows, self._penalties, self._known)
        return True

    @property
    def _device(self) -> torch.device:
        return self._known.token_ids.device

    def _keep(self, row: int) -> None:
        """Have the row's rules on the device."""
        rules: LogitsRules = self._rows.sampling.rules[row]
        if self._kept.get(row) is rules:
            return
        self._kept[row] = rules
        values = _values(rules, self._rows.limits.vocab_size)
        self._make_room(values)
        uploaded = self._stream.upload(np.concatenate([each.ravel() for each in values.values()]))
        parts = torch.split(uploaded, [each.size for each in values.values()])
        for (name, each), part in zip(values.items(), parts, strict=True):
            target = getattr(self._penalties, name)[row]
            target.fill_(_NONE)
            target[_at_end(target.shape, each.shape)] = part.view(target.dtype).view(each.shape)

    def _make_room(self, values: dict[str, Numbers]) -> None:
        """Make tensors larger where the rules have longer lists than there is room for."""
        grown = {}
        for field in fields(Penalties):
            old: Tensor = getattr(self._penalties, field.name)
            needed = values[field.name].shape
            sizes = [max(have, need) for have, need in zip(old.shape[1:], needed, strict=True)]
            grown[field.name] = old
            if sizes != list(old.shape[1:]):
                new = old.new_full((len(old), *sizes), _NONE)
                new[:, *_at_end(new.shape[1:], old.shape[1:])] = old
                grown[field.name] = new
        self._penalties = Penalties(**grown)


def _at_end(sizes: Sequence[int], lengths: Sequence[int]) -> tuple[slice, ...]:
    """Return where something shorter is to lie: at the end of its places, as bad words have to."""
    pairs = zip(sizes, lengths, strict=True)
    return tuple(slice(size - length, size) for size, length in pairs)


def _empty(num_rows: int, vocab_size: int, device: torch.device) -> Penalties:
    """Return rules with room for no list of anything."""

    def numbers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.full((num_rows, *shape), _NONE, dtype=dtype, device=device)

    return Penalties(
        allowed=numbers(-(-vocab_size // _BITS)),
        bad_words=numbers(0, 0),
        min_tokens=numbers(),
        stop_token_ids=numbers(0),
        bias_token_ids=numbers(0),
        bias_values=numbers(0, dtype=torch.float32),
        repetition_penalty=numbers(dtype=torch.float32),
        frequency_penalty=numbers(dtype=torch.float32),
        presence_penalty=numbers(dtype=torch.float32),
    )


def _values(rules: LogitsRules, vocab_size: int) -> dict[str, Numbers]:
    """Return a row of each tensor of Penalties, as int32 or as the bits of float32."""
    is_allowed = np.zeros(-(-vocab_size // _BITS) * _BITS, np.bool_)
    is_allowed[rules.allowed_token_ids if len(rules.allowed_token_ids) else slice(None)] = True
    # Whatever is before it: words of one token are never drawn.
    is_allowed[[word[0] for word in rules.bad_words if len(word) == 1]] = False
    words = [word for word in rules.bad_words if len(word) > 1]
    bad_words = np.full((len(words), max(map(len, words), default=0)), _NONE, np.int32)
    for place, word in zip(bad_words, words, strict=True):
        place[len(place) - len(word) :] = word
    # A token may be named twice.
    biased, index = np.unique(rules.bias_token_ids, return_inverse=True)
    biases = np.zeros(len(biased), np.float32)
    np.add.at(biases, index, rules.bias_values)

    def bits(value: float) -> Numbers:
        return np.array(value, np.float32).view(np.int32)

    return {
        "allowed": np.packbits(is_allowed, bitorder="little").view(np.int32),
        "bad_words": bad_words,
        "min_tokens": np.array(rules.min_tokens, np.int32),
        "stop_token_ids": rules.stop_token_ids.astype(np.int32),
        "bias_token_ids": biased.astype(np.int32),
        "bias_values": biases.view(np.int32),
        "repetition_penalty": bits(rules.repetition_penalty),
        "frequency_penalty": bits(rules.frequency_penalty),
        "presence_penalty": bits(rules.presence_penalty),
    }
