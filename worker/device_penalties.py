"""The rules of single tokens (logits_rules.py) where a device applies them: a row's in a row.

All rows' rules lie in one memory, with room for the longest lists that any row has had; for a
longer one it is made anew. Rules go there when they are first needed, those of all rows in one
copy. Which rows of a step have rules the host knows; which tokens these have it does not, and
nothing here waits for that.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.penalties import KnownTokens, Penalties, apply_penalties

from .device_rows import DeviceRows
from .device_stream import DeviceStream
from .logits_rules import LogitsRules
from .rows import Rows
from .run_list import RunList
from .sampled_rows import SampledRows

Numbers = NDArray[np.int32]

_NONE = -1
_BITS = 32
# What begins at a multiple of 16 bytes is read 16 bytes at a time.
_ALIGNMENT = 4
_REALS = ("bias_values", "repetition_penalty", "frequency_penalty", "presence_penalty")


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
        self._shapes: dict[str, tuple[int, ...]] = {}

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
        self._keep(set(sources.tolist()))
        indices = np.concatenate((places, sources)).astype(np.int32)
        on_device, rows = self._stream.upload(indices).chunk(2)
        apply_penalties(logits, on_device, rows, self._penalties, self._known)
        return True

    def _keep(self, rows: set[int]) -> None:
        """Have the rows' rules on the device."""
        rules: dict[int, LogitsRules] = {row: self._rows.sampling.rules[row] for row in rows}
        vocab_size = self._rows.limits.vocab_size
        values = {
            row: _values(each, vocab_size)
            for row, each in rules.items()
            if self._kept.get(row) is not each
        }
        if not self._has_room(values.values()):
            self._make_room(values.values())
            values = {row: _values(each, vocab_size) for row, each in rules.items()}
        runs = RunList()
        for row, by_name in values.items():
            for name, numbers in by_name.items():
                view = self._views[name]
                padded = np.full(view.shape[1:], _NONE, np.int32)
                padded[_at_end(padded.shape, numbers.shape)] = numbers
                runs.add(int(DeviceRows.places(view, row)), padded.ravel())
        if values:
            runs.send(self._memory, self._stream)
            self._kept.update((row, rules[row]) for row in values)

    def _has_room(self, rows: Iterable[Mapping[str, Numbers]]) -> bool:
        return bool(self._shapes) and all(
            needed <= have
            for row in rows
            for name, numbers in row.items()
            for needed, have in zip(numbers.shape, self._shapes[name], strict=True)
        )

    def _make_room(self, rows: Iterable[Mapping[str, Numbers]]) -> None:
        """Take memory where these rows fit in, and all before them; nothing is in it."""
        needed = dict(self._shapes)
        for row in rows:
            for name, numbers in row.items():
                have = needed.get(name, (0,) * numbers.ndim)
                needed[name] = tuple(map(max, have, numbers.shape))
        num_rows = self._rows.limits.num_rows
        shapes = {name: (num_rows, *shape) for name, shape in needed.items()}
        sizes = [-(-math.prod(shape) // _ALIGNMENT) * _ALIGNMENT for shape in shapes.values()]
        starts = accumulate(sizes, initial=0)
        device = self._known.token_ids.device
        # Where this finds no memory, all is as it was.
        self._memory = torch.full((sum(sizes),), _NONE, dtype=torch.int32, device=device)
        self._shapes = needed
        self._kept.clear()
        self._views = {
            name: self._memory[start : start + math.prod(shape)].view(shape)
            for start, (name, shape) in zip(starts, shapes.items(), strict=False)
        }
        self._penalties = Penalties(
            **{
                name: view.view(torch.float32) if name in _REALS else view
                for name, view in self._views.items()
            }
        )


def _at_end(sizes: Sequence[int], lengths: Sequence[int]) -> tuple[slice, ...]:
    """Return where something shorter is to lie: at the end of its places, as bad words have to."""
    pairs = zip(sizes, lengths, strict=True)
    return tuple(slice(size - length, size) for size, length in pairs)


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
