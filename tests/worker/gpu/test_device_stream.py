"""Copies to a device and back: each brings what there was when it was ordered."""

import numpy as np
import pytest
import torch

from octavo.worker.device_stream import DeviceStream, stream_of


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def stream(device: torch.device) -> DeviceStream:
    return stream_of(device)


def test_uploads_are_what_was_given_though_it_is_changed_at_once(
    stream: DeviceStream, device: torch.device
) -> None:
    values = np.arange(4900, dtype=np.int32)
    uploaded = []
    # More than are under way at once, so that memory is used again: it is read by what is next.
    for size in 10 * (0, 1, 4900, 17, 4096, 0, 4899, 3, 2, 1000, 4900):
        tensor = stream.upload(values[:size])
        assert tensor.device.type == device.type
        uploaded.append(tensor.clone())
        values += 1
    for i, tensor in enumerate(uploaded):
        assert tensor.tolist() == list(range(i, i + len(tensor)))


def test_a_fetch_brings_the_numbers_of_its_moment(
    stream: DeviceStream, device: torch.device
) -> None:
    numbers = torch.zeros(3, 1000, device=device)
    begun = stream.mark()
    fetches = []
    for _ in range(20):
        numbers = numbers + 1
        fetches.append(stream.fetch([numbers, numbers[:0], numbers[1, 5]]))
    ended = stream.mark()
    last = stream.fetch([numbers])
    for i, fetch in enumerate(fetches):
        whole, none, one = fetch.wait()
        assert whole.device.type == "cpu"
        assert (whole == i + 1).all() and one == i + 1 and none.shape == (0, 1000)
    last.wait()
    assert begun.ns_until(ended) >= 0
