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

linear_run: int

def linear_bias(
    dtype: int,
    wide: int,
    product: int,
    product_stride: int,
    bias: int,
    y: int,
    y_stride: int,
    rows: int,
    columns: int,
    padded: int,
    threads: int,
    /,
) -> int: ...
def linear_gelu(
    dtype: int,
    product: int,
    product_stride: int,
    bias: int,
    pre: int,
    y: int,
    y_stride: int,
    rows: int,
    columns: int,
    padded: int,
    threads: int,
    /,
) -> int: ...
def linear_residual(
    dtype: int,
    wide: int,
    product: int,
    product_stride: int,
    bias: int,
    residual: int,
    scale: int,
    y: int,
    y_stride: int,
    first: int,
    per_image: int,
    rows: int,
    columns: int,
    padded: int,
    threads: int,
    /,
) -> int: ...
def linear_gelu_backward(
    dtype: int,
    product: int,
    product_stride: int,
    pre: int,
    dx: int,
    dx_stride: int,
    rows: int,
    columns: int,
    padded: int,
    threads: int,
    /,
) -> int: ...
def linear_incoming(
    dtype: int,
    wide: int,
    dy: int,
    dy_stride: int,
    scale: int,
    first: int,
    per_image: int,
    scaled: int,
    scaled_stride: int,
    partials: int,
    dbias: int,
    rows: int,
    columns: int,
    threads: int,
    /,
) -> int: ...
