"""The Triton side of the kernels: one file for each operation that runs on a GPU."""
