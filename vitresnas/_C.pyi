"""Types of the compiled module (csrc/bindings/). Addresses are `tensor.data_ptr()`."""

from typing import TypedDict

class CudaDevice(TypedDict):
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    bytes: int

class CudaDevices(TypedDict):
    code: int
    message: str
    driver: int
    runtime: int
    devices: list[CudaDevice]

has_cuda: bool
cuda_architectures: str

def cuda_devices() -> CudaDevices: ...
def cuda_message(code: int, /) -> str: ...
def masked_layer_norm_forward(
    dtype: int,
    x: int,
    weight: int,
    bias: int,
    widths: int,
    y: int,
    mean: int,
    rstd: int,
    rows: int,
    channels: int,
    groups: int,
    eps: float,
    threads: int,
    /,
) -> int: ...
def masked_layer_norm_backward(
    dtype: int,
    dy: int,
    x: int,
    mean: int,
    rstd: int,
    weight: int,
    widths: int,
    dx: int,
    partials: int,
    dweight: int,
    dbias: int,
    rows: int,
    channels: int,
    groups: int,
    chunks: int,
    threads: int,
    /,
) -> int: ...
