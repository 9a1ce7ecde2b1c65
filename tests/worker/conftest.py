"""What tests of the worker share."""

from collections.abc import Iterator

import pytest
import torch

from octavo.kernels.threads import num_threads, set_num_threads


@pytest.fixture
def same_threads_afterwards() -> Iterator[None]:
    """What a test sets is not what the next one finds: threads are those of the process."""
    before = torch.get_num_threads(), num_threads()
    yield
    torch.set_num_threads(before[0])
    set_num_threads(before[1])
