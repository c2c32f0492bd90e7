"""An independent forward pass of ViT-Res, straight from the paper's facts, for the tests alone.

It reads a state dict with the authors' names and their nested tuple, shares no code with
vitresnas.models, and prefers the plainest arithmetic: attention written out, pooling by
avg_pool2d, one loop over the items of the tuple.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]

# The authors' notation of a network of three stages, with a removed block.
DEFINITION = (
    (5, 16, 8),
    (1, (16, 2, 8), (16, 24), 1),
    (1, (16, 1, 8), (16, 16), 0),
    (3, 16, 24),
    (1, (24, 1, 8), (24, 40), 1),
    (3, 24, 32),
    (1, (32, 3, 16), (32, 40), 1),
    (2, 32, 5),
)


def oracle_logits(state: State, network_def: Any, images: torch.Tensor, patch: int = 14) -> Any:
    """Raw logits of every head by name: class, distillation (with 2 prefix tokens), patch."""
    prefix = state["tokens"].shape[1]
    x = embed(state, network_def[0], images, patch)
    for index, item in enumerate(network_def[1:-1]):
        name = f"blocks.{index}"
        if item[0] == 1 and item[3]:
            _, (_, heads, head_dim), _, _ = item
            x = x + attention(state, name, layer_norm(state, f"{name}.norm1", x), heads, head_dim)
            x = x + mlp(state, name, layer_norm(state, f"{name}.norm2", x))
        elif item[0] == 3:
            x = reduce(state, name, x, prefix, item[2])
    x = layer_norm(state, "norm", x)
    logits = {"class": linear(state, "cls_head", x[:, 0])}
    if prefix == 2:
        logits["distillation"] = linear(state, "dst_head", x[:, 1])
    if "patch_head.weight" in state:
        logits["patch"] = linear(state, "patch_head", x[:, prefix:])
    return logits


def embed(state: State, item: Any, images: torch.Tensor, patch: int) -> torch.Tensor:
    if item[0] == 0:
        name, stride = "patch_embed.proj", patch
        picture = images
    else:
        name, stride = "patch_embed.conv_proj", patch // 2
        first = conv_bn_relu(state, "patch_embed.conv1", images, 2)
        second = conv_bn_relu(state, "patch_embed.conv2", first, 1)
        picture = first + conv_bn_relu(state, "patch_embed.conv3", second, 1)
    grid = F.conv2d(picture, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride)
    batch, channels, height, width = grid.shape
    patches = grid.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    tokens = torch.cat([state["tokens"]] * batch)
    return torch.cat([tokens, patches], dim=1) + state["pos_embed"]


def conv_bn_relu(state: State, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    x = F.conv2d(x, state[f"{name}.conv.weight"], None, stride=stride, padding=1)
    column = {
        part: state[f"{name}.bn.{part}"].reshape(1, -1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    }
    x = (x - column["running_mean"]) / torch.sqrt(column["running_var"] + 1e-5)
    return (x * column["weight"] + column["bias"]).clamp(min=0)


def attention(state: State, name: str, y: torch.Tensor, heads: int, head_dim: int) -> torch.Tensor:
    batch, tokens, _ = y.shape
    qkv = linear(state, f"{name}.attn.qkv", y)
    inner = heads * head_dim
    out = []
    for head in range(heads):
        start = head * head_dim
        q, k, v = (
            qkv[:, :, part * inner + start : part * inner + start + head_dim] for part in range(3)
        )
        scores = torch.matmul(q, k.transpose(1, 2)) / math.sqrt(head_dim)
        out.append(torch.matmul(torch.softmax(scores, dim=-1), v))
    assert torch.cat(out, dim=-1).shape == (batch, tokens, inner)
    return linear(state, f"{name}.attn.proj", torch.cat(out, dim=-1))


def mlp(state: State, name: str, y: torch.Tensor) -> torch.Tensor:
    hidden = linear(state, f"{name}.mlp.fc1", y)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return linear(state, f"{name}.mlp.fc2", hidden)


def reduce(state: State, name: str, x: torch.Tensor, prefix: int, width: int) -> torch.Tensor:
    batch, tokens, channels = x.shape
    side = math.isqrt(tokens - prefix)

    def as_picture(z: torch.Tensor) -> torch.Tensor:
        return z[:, prefix:].reshape(batch, side, side, channels).permute(0, 3, 1, 2)

    def as_tokens(picture: torch.Tensor) -> torch.Tensor:
        return picture.permute(0, 2, 3, 1).reshape(batch, (side // 2) ** 2, -1)

    def widen(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, z.new_zeros(batch, z.shape[1], width - channels)], dim=2)

    y = layer_norm(state, f"{name}.norm", x)
    path = F.conv2d(
        as_picture(y),
        state[f"{name}.patch_reduce.weight"],
        state[f"{name}.patch_reduce.bias"],
        stride=2,
        padding=1,
    )
    patches = as_tokens(path) + state[f"{name}.pos_embed"]
    patches = patches + widen(as_tokens(F.avg_pool2d(as_picture(x), 2)))
    front = linear(state, f"{name}.token_transform", y[:, :prefix]) + widen(x[:, :prefix])
    return torch.cat([front, patches], dim=1)


def layer_norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    normed = (x - mean) / torch.sqrt(variance + 1e-6)
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return torch.matmul(x, state[f"{name}.weight"].t()) + state[f"{name}.bias"]


def random_checkpoint(
    network_def: Any,
    *,
    prefix: int = 1,
    side: int = 56,
    patch: int = 14,
    patch_head: bool = False,
    seed: int = 0,
) -> State:
    """A state dict with the authors' names and shapes; no value is at its usual start."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.1, shift: float = 0.0) -> torch.Tensor:
        return torch.randn(*shape, generator=rng) * scale + shift

    state: State = {}

    def put_linear(name: str, c_in: int, c_out: int) -> None:
        state[f"{name}.weight"] = draw(c_out, c_in, scale=c_in**-0.5)
        state[f"{name}.bias"] = draw(c_out)

    def put_norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = draw(channels, shift=1.0, scale=0.2)
        state[f"{name}.bias"] = draw(channels)

    kind, width = network_def[0][:2]
    grid = side // patch
    state["tokens"] = draw(1, prefix, width, scale=1.0)
    state["pos_embed"] = draw(1, prefix + grid * grid, width, scale=0.5)
    if kind == 0:
        state["patch_embed.proj.weight"] = draw(width, 3, patch, patch, scale=0.05)
        state["patch_embed.proj.bias"] = draw(width)
    else:
        mid = network_def[0][2] if kind == 5 else 24
        for number, c_in in ((1, 3), (2, mid), (3, mid)):
            name = f"patch_embed.conv{number}"
            state[f"{name}.conv.weight"] = draw(mid, c_in, 3, 3, scale=(9 * c_in) ** -0.5)
            put_norm(f"{name}.bn", mid)
            state[f"{name}.bn.running_mean"] = draw(mid, scale=0.3)
            state[f"{name}.bn.running_var"] = draw(mid).abs() + 0.5
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(1234)
        half = patch // 2
        state["patch_embed.conv_proj.weight"] = draw(width, mid, half, half, scale=0.05)
        state["patch_embed.conv_proj.bias"] = draw(width)
    for index, item in enumerate(network_def[1:-1]):
        name = f"blocks.{index}"
        if item[0] == 3:
            _, c_in, width = item
            grid //= 2
            put_norm(f"{name}.norm", c_in)
            state[f"{name}.pos_embed"] = draw(1, grid * grid, width, scale=0.5)
            state[f"{name}.patch_reduce.weight"] = draw(width, c_in, 3, 3, scale=(9 * c_in) ** -0.5)
            state[f"{name}.patch_reduce.bias"] = draw(width)
            put_linear(f"{name}.token_transform", c_in, width)
        elif item[3]:
            _, (_, heads, head_dim), (_, hidden), _ = item
            put_norm(f"{name}.norm1", width)
            put_linear(f"{name}.attn.qkv", width, 3 * heads * head_dim)
            put_linear(f"{name}.attn.proj", heads * head_dim, width)
            put_norm(f"{name}.norm2", width)
            put_linear(f"{name}.mlp.fc1", width, hidden)
            put_linear(f"{name}.mlp.fc2", hidden, width)
    classes = network_def[-1][2]
    put_norm("norm", width)
    put_linear("cls_head", width, classes)
    if prefix == 2:
        put_linear("dst_head", width, classes)
    if patch_head:
        put_linear("patch_head", width, classes)
    return state
