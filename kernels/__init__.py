"""Triton kernels, one op per file; imported as `vitresnas.kernels`."""
