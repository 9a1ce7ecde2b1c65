"""The client of all servers, `vllm bench serve`, on the same cores as they."""

from pathlib import Path
from typing import Any
from zlib import crc32

from .engines import DrivenEngine, driver_command
from .installation import Installation
from .measurement import Run
from .process_group import EngineFailed
from .workloads import ServedWorkload

SERVED_MODEL = "model"
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
_LATENCIES = ("mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "p99_itl_ms")


class Client:
    """Asks servers for random prompts, others for each workload and seed; paused between turns."""

    def __init__(self, peers: Installation, directory: Path) -> None:
        """Begin; the process starts with the first turn, and again after one that failed."""
        self._peers = peers
        self._directory = directory
        self._process: DrivenEngine | None = None

    def run(self, url: str, workload: ServedWorkload, seed: int) -> Run:
        """Do the workload at the server of `url`; raises EngineFailed."""
        if self._process is None:
            self._process = self._start()
        try:
            found: dict[str, Any] = self._process.call(
                "ask", options=self._options(url, workload, seed)
            )
        except EngineFailed:
            self.stop()
            raise
        return Run(
            duration_s=found["duration"],
            num_input_tokens=found["total_input_tokens"],
            num_output_tokens=found["total_output_tokens"],
            latencies_ms={name: round(found[name], 2) for name in _LATENCIES if name in found},
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
        self._process = None

    def _start(self) -> DrivenEngine:
        command = driver_command(self._peers.vllm_command("python"), "client_driver")
        process = DrivenEngine(command, _ENVIRONMENT, self._directory)
        process.start()
        return process

    def _options(self, url: str, workload: ServedWorkload, seed: int) -> list[str]:
        options = {
            "--backend": "vllm",
            "--base-url": url,
            "--model": SERVED_MODEL,
            "--served-model-name": SERVED_MODEL,
            "--tokenizer": str(self._peers.checkpoint("bf16")),
            "--dataset-name": "random",
            "--random-input-len": str(workload.input_len),
            "--random-output-len": str(workload.output_len),
            "--num-prompts": str(workload.num_requests),
            "--max-concurrency": str(workload.concurrency),
            "--request-rate": f"{workload.request_rate:g}",
            # Others than in other workloads: a server that had them before would have them cached.
            "--seed": str(crc32(f"{workload.name} {seed}".encode())),
            "--temperature": "0",
        }
        return [
            "--ignore-eos",
            "--disable-tqdm",
            *(word for pair in options.items() for word in pair),
        ]
