"""How long the GPU was idle, from the records that it keeps of its own work."""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import DeviceType


def idle_share(run: Callable[[], object]) -> float:
    """Return the share of the time, from the first work of `run` to the last, without any."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    return idle_share_of(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == DeviceType.CUDA
    )


def idle_share_of(spans: Iterable[tuple[float, float]]) -> float:
    """Return the share that no span covers; spans may overlap, as those of two streams do."""
    ordered = sorted(spans)
    assert ordered, "the GPU has recorded nothing"
    first, covered_to = ordered[0][0], ordered[0][0]
    busy = 0.0
    for start, end in ordered:
        busy += max(0.0, end - max(start, covered_to))
        covered_to = max(covered_to, end)
    return 1 - busy / (covered_to - first)
