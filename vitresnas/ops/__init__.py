"""What models call: one op per file, each with its plain-torch reference and its fast backends."""

OPS = (
    "masked_layer_norm",
    "variable_attention",
    "variable_linear",
    "variable_patch_embedding",
    "variable_reduction",
)
"""Every op, by the name of its module; `vitresnas env` and the benchmarks walk this list."""
