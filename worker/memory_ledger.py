"""The ledger of a device's memory: what each use takes, in one line for an operator."""

from dataclasses import dataclass

from .device_memory import MeasuredMemory


@dataclass(frozen=True, slots=True)
class MemoryLedger:
    """All of a device's memory, once the KV cache has its part."""

    measured: MeasuredMemory
    kv_cache_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """What nobody is promised."""
        measured = self.measured
        taken = measured.others_bytes + measured.own_bytes + self.kv_cache_bytes
        return measured.total_bytes - taken

    def rows(self) -> list[tuple[str, int]]:
        """Return use and bytes of each part; they add up to all there is."""
        measured = self.measured
        return [
            ("others", measured.others_bytes),
            ("kernels", measured.program_bytes),
            ("weights", measured.weights_bytes),
            ("graphs", measured.graphs_bytes),
            ("activations", measured.activations_bytes),
            ("KV cache", self.kv_cache_bytes),
            ("reserve", self.reserve_bytes),
        ]

    def line(self) -> str:
        """Return the ledger in one line, for the start-up."""
        parts = ", ".join(f"{use} {num_bytes / 1e9:.2f}" for use, num_bytes in self.rows())
        return f"memory {self.measured.total_bytes / 1e9:.2f} GB: {parts}"
