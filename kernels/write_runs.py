"""Write runs: all that changes between two steps, put to its places by one kernel.

    memory[destinations[i] + k] = values[sources[i] + k]      for k in 0 .. lengths[i] − 1

What a plan changes of the rows on a device is many short stretches of memory, here and there. They
come in one copy from the host, side by side, with the list of where each belongs.

Idea: staged writes of vLLM's model runner v2 (https://github.com/vllm-project/vllm).
"""

from torch import Tensor

from .gpu.interpreter import interpreting


def write_runs(
    memory: Tensor, destinations: Tensor, lengths: Tensor, sources: Tensor, values: Tensor
) -> None:
    """Copy stretches of `values` into `memory`.

    Args:
        memory: int32 [size], contiguous.
        destinations: int64 [num_runs], where in `memory` each run begins. Where runs overlap, they
            have to agree.
        lengths: int32 [num_runs].
        sources: int32 [num_runs], where in `values` each begins.
        values: int32 [num_values], contiguous.
    """
    if not (memory.is_cuda or interpreting()):
        return write_runs_reference(memory, destinations, lengths, sources, values)
    # Triton is there where a device is.
    from .gpu import write_runs as gpu

    gpu.write_runs(memory, destinations, lengths, sources, values)


def write_runs_reference(
    memory: Tensor, destinations: Tensor, lengths: Tensor, sources: Tensor, values: Tensor
) -> None:
    runs = zip(destinations.tolist(), lengths.tolist(), sources.tolist(), strict=True)
    for destination, length, source in runs:
        memory[destination : destination + length] = values[source : source + length]
