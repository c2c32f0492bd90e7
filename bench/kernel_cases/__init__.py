"""What `bench/kernels.py` times: one file per op, each with `works(batch, device)`.

A case says what one call of ours is, what the plain ways to do the same are, and which bytes and
floating-point operations nobody can do without. It neither checks nor times: bench/kernels.py does.
"""
