"""CUDA graphs share memory and take turns; they are recorded while a thread waits for copies."""

import threading
from functools import partial
from queue import SimpleQueue

import pytest
import torch
from torch import Tensor

from octavo.worker.cuda_graphs import CudaGraphRecorder
from octavo.worker.device_stream import Fetch, stream_of

pytestmark = pytest.mark.gpu

SIZES = (256, 64, 1)


def test_graphs_are_recorded_while_another_thread_waits_for_copies(cuda: str) -> None:
    device = torch.device(cuda)
    stream, recorder = stream_of(device), CudaGraphRecorder()
    numbers = torch.arange(1024.0, device=device)
    fetches: SimpleQueue[Fetch | None] = SimpleQueue()
    told: list[float] = []

    def wait() -> None:
        while (fetch := fetches.get()) is not None:
            told.append(fetch.wait()[0][1].item())

    def work(size: int) -> Tensor:
        # What lies between takes memory, too, which the graphs share.
        return (numbers[:size, None] + numbers).sum(dim=1)

    waiting = threading.Thread(target=wait)
    waiting.start()
    graphs = {}
    try:
        for size in SIZES:
            for _ in range(8):
                fetches.put(stream.fetch([numbers * size]))
            graphs[size] = recorder.record(partial(work, size))
    finally:
        fetches.put(None)
        waiting.join()
    assert told == [float(size) for size in SIZES for _ in range(8)]
    for addend in (1.0, 2.0):
        numbers.add_(addend)
        for size in reversed(SIZES):
            graphs[size].replay()
            assert torch.equal(graphs[size].output, work(size))
