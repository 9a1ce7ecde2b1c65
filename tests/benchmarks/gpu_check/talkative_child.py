"""Writes rows, as modules of benchmarks.gpu_check do, and uses a library that prints."""

from benchmarks.gpu_check.child import write_row

print("Loading the best of all models...")
write_row({"kernel": "linear"})
print()
write_row({"kernel": "moe"})
