"""Starts a process that outlasts every test, and waits for it."""

import subprocess
import sys

from benchmarks.gpu_check.child import write_row

with subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL
) as process:
    write_row({"pid": process.pid})
