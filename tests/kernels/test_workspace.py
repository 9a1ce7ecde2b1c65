"""Memory that is used again."""

import torch

from octavo.kernels.workspace import Workspace


def test_memory_is_used_again_unless_more_is_needed() -> None:
    workspace = Workspace()
    large = workspace.take((3, 5), torch.float32)
    assert large.shape == (3, 5)
    assert large.dtype == torch.float32
    assert large.is_contiguous()
    small = workspace.take((7,), torch.bfloat16)
    assert (small.shape, small.dtype) == ((7,), torch.bfloat16)
    assert small.data_ptr() == large.data_ptr()
    larger = workspace.take((16,), torch.float32)
    large.fill_(1)
    larger.fill_(2)
    assert (large == 1).all()


def test_what_was_taken_last_is_given_again() -> None:
    workspace = Workspace()
    first = workspace.take((3, 5), torch.float32)
    again = workspace.take((3, 5), torch.float32)
    assert again.data_ptr() == first.data_ptr()
    other = workspace.take((3, 5), torch.bfloat16)
    assert (other.shape, other.dtype) == ((3, 5), torch.bfloat16)


def test_nothing_can_be_taken() -> None:
    assert Workspace().take((0, 5), torch.float32).shape == (0, 5)
