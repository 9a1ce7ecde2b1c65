"""The C++ twins of the kernels, built with the machine's compiler on first use."""
