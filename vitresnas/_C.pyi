"""Types of the compiled module (csrc/bindings/). Addresses are `tensor.data_ptr()`."""

from collections.abc import Sequence
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
    x_dtype: int,
    y_dtype: int,
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
    padded: bool,
    threads: int,
    /,
) -> int: ...
def masked_layer_norm_forward_cuda(
    x_dtype: int,
    y_dtype: int,
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
    padded: bool,
    stream: int,
    /,
) -> int: ...
def masked_layer_norm_backward(
    x_dtype: int,
    y_dtype: int,
    dy: int,
    x: int,
    mean: int,
    rstd: int,
    weight: int,
    widths: int,
    residual: int,
    skip_widths: int,
    dx: int,
    partials: int,
    dweight: int,
    dbias: int,
    rows: int,
    channels: int,
    groups: int,
    chunks: int,
    padded: bool,
    threads: int,
    /,
) -> int: ...
def masked_layer_norm_backward_cuda(
    x_dtype: int,
    y_dtype: int,
    dy: int,
    x: int,
    mean: int,
    rstd: int,
    weight: int,
    widths: int,
    residual: int,
    skip_widths: int,
    dx: int,
    partials: int,
    dweight: int,
    dbias: int,
    rows: int,
    channels: int,
    groups: int,
    chunks: int,
    padded: bool,
    stream: int,
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
    wide: int,
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
    wide: int,
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
def token_sums(
    dtype: int,
    x: int,
    widths: int,
    sums: int,
    prefix_total: int,
    patch_total: int,
    images: int,
    tokens: int,
    prefix: int,
    channels: int,
    groups: int,
    threads: int,
    /,
) -> int: ...
def patches_gather(
    dtype: int, threads: int, sizes: Sequence[int], trunk: int, columns: int, /
) -> int: ...
def patches_scatter(
    dtype: int, threads: int, sizes: Sequence[int], columns: int, trunk: int, /
) -> int: ...
def patches_forward(
    dtype: int,
    products: int,
    bias: int,
    prefix_tokens: int,
    position: int,
    out: int,
    images: int,
    prefix: int,
    patches: int,
    channels: int,
    width: int,
    threads: int,
    /,
) -> int: ...
def token_at(i: int, j: int, stride: int, down: int, right: int, side: int, /) -> int: ...
def gather_tokens(
    dtype: int,
    x: int,
    columns: int,
    images: int,
    prefix: int,
    side: int,
    half: int,
    channels: int,
    width: int,
    stride: int,
    down: int,
    right: int,
    threads: int,
    /,
) -> int: ...
def reduction_forward(
    dtype: int,
    threads: int,
    sizes: Sequence[int],
    patches: int,
    prefixes: int,
    x: int,
    bias: int,
    position: int,
    prefix_bias: int,
    out: int,
    /,
) -> int: ...
def reduction_scatter(
    dtype: int,
    threads: int,
    sizes: Sequence[int],
    gradients: int,
    dy: int,
    row: int,
    column: int,
    /,
) -> int: ...
def reduction_skip(
    dtype: int, threads: int, sizes: Sequence[int], dout: int, dx: int, /
) -> int: ...
def variable_attention_scratch(tokens: int, head_dim: int, /) -> int: ...
def variable_attention_forward(
    qkv: int,
    out: int,
    lse: int,
    dtype: int,
    images: int,
    tokens: int,
    most_heads: int,
    head_dim: int,
    groups: int,
    heads: int,
    scale: float,
    scratch: int,
    threads: int,
    /,
) -> int: ...
def variable_attention_backward(
    dout: int,
    qkv: int,
    out: int,
    lse: int,
    dqkv: int,
    dtype: int,
    images: int,
    tokens: int,
    most_heads: int,
    head_dim: int,
    groups: int,
    heads: int,
    scale: float,
    scratch: int,
    threads: int,
    /,
) -> int: ...
def variable_attention_cuda_prepare() -> int: ...
def variable_attention_cuda_forward(
    dtype: int,
    qkv: int,
    heads: int,
    out: int,
    lse: int,
    images: int,
    groups: int,
    tokens: int,
    storage_heads: int,
    head_dim: int,
    scale: float,
    stream: int,
    /,
) -> int: ...
def variable_attention_cuda_backward(
    dtype: int,
    dout: int,
    qkv: int,
    out: int,
    lse: int,
    heads: int,
    dqkv: int,
    images: int,
    groups: int,
    tokens: int,
    storage_heads: int,
    head_dim: int,
    scale: float,
    stream: int,
    /,
) -> int: ...
