"""The kernels' plain PyTorch, which says what a kernel computes, says the same on a GPU."""

import pytest
import torch

from octavo.kernels.sampling import gumbel_noise, philox4x32

pytest.importorskip("triton")

from benchmarks.gpu_check.kernel_case import (
    TOLERANCE,
    KernelCase,
    copied,
    largest_error,
)
from tests.benchmarks.gpu.tiny_cases import tiny_cases

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", list(tiny_cases()), ids=lambda case: case.name)
def test_a_reference_computes_on_a_gpu_what_it_does_on_the_cpu(cuda: str, case: KernelCase) -> None:
    inputs = case.make("cpu", torch.float32)
    expected = case.reference(*copied(inputs))
    actual = case.reference(*(tensor.to(cuda) for tensor in inputs))
    assert largest_error(actual, expected) <= (case.tolerance or TOLERANCE[torch.float32])


def test_random_words_are_the_same_to_the_bit(cuda: str) -> None:
    counter, key = torch.randint(2**32, (4, 1000)), torch.randint(2**32, (2, 1000))

    def words(device: str) -> list[torch.Tensor]:
        c0, c1, c2, c3 = counter.to(device)
        k0, k1 = key.to(device)
        return [word.cpu() for word in philox4x32((c0, c1, c2, c3), (k0, k1))]

    assert all(map(torch.equal, words("cpu"), words(cuda)))


def test_the_noise_that_decides_a_draw_is_nearly_the_same(cuda: str) -> None:
    seeds, positions = torch.randint(2**62, (8,)), torch.arange(8)
    expected = gumbel_noise(seeds, positions, 1000)
    actual = gumbel_noise(seeds.to(cuda), positions.to(cuda), 1000).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
