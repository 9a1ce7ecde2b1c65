"""Kernels for GPUs (Triton) and CPUs (C++), each with its plain PyTorch reference."""
