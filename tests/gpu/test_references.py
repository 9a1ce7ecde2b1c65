"""The kernels' plain PyTorch, which says what a kernel computes, says the same on a GPU."""

import pytest
import torch

from benchmarks.gpu_check import TOLERANCE
from benchmarks.kernel_cases import CASES, KernelCase, error_of
from octavo.kernels.sampling import gumbel_noise, philox4x32

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_reference_computes_on_a_gpu_what_it_does_on_the_cpu(cuda: str, case: KernelCase) -> None:
    inputs = case.make()
    for dtype in case.dtypes:
        assert error_of(case, inputs, dtype, cuda) <= TOLERANCE[dtype], dtype


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
