"""GPU kernels on the stored formats of compressed weights: CUDA C++ through CuPy, and Triton for tiled products.

Tensors go to CuPy by DLPack, without a copy. Importing this needs neither CuPy, nor Triton, nor a driver: what is not
there is named by the call that needs it. `registry.kernels()` lists them, `checks.check` holds each to its float64
reference, `bench.measure` times them; `weights.matmul` multiplies by a weight of `harness.packed`.
"""
