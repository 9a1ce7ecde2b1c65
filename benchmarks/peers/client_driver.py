"""`vllm bench serve` as one process for all servers and turns, in vLLM's own environment.

Importing it takes longer than many a turn.
"""

from typing import Any

from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser

from .driver import Driver


def main() -> None:
    driver = Driver()
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)

    def ask(options: list[str]) -> dict[str, Any]:
        """Run it with these command line options; return what it would save as JSON."""
        measured: dict[str, Any] = serve.main(parser.parse_args(options))
        return measured

    driver.serve({"ask": ask})


if __name__ == "__main__":
    main()
