// What surrounds the matrix products of a variable-width spatial reduction. See variable_reduction.cpp.
#pragma once

#include <cstdint>

// Activations are (images, prefix + side * side, channels) of `dtype`, side even, half = side / 2; all
// other pointers are float, or double where dtype is float64. Only the first `width` columns count.
struct VitresnasReduction {
    int dtype, threads;
    int64_t images, side, prefix, channels_in, channels_out, width_in, width_out;
};

extern "C" {

// columns (images * half * half, width): tokens of x (images, tokens, channels) at (stride * i + down,
// stride * j + right) of the side x side grid that begins at token `prefix`; zeros outside of it.
int vitresnas_gather_tokens(int dtype, const void *x, void *columns, int64_t images, int64_t prefix,
                            int64_t side, int64_t half, int64_t channels, int64_t width,
                            int64_t stride, int64_t down, int64_t right, int threads);

// out = products + bias + position + 2x2 mean of x (patches), products + bias + x (prefix), zero to the
// next 16; patches: (images * half * half, width_out), prefixes: (images * prefix, width_out). A width_in
// of 0 makes it all zero, and the products are not read.
int vitresnas_reduction_forward(const VitresnasReduction *shape, const void *patches,
                                const void *prefixes, const void *x, const void *bias,
                                const void *position, const void *prefix_bias, void *out);

// The inputs (2i + row, 2j + column) of dy from `gradients` (images * half * half, width_in).
int vitresnas_reduction_scatter(const VitresnasReduction *shape, const void *gradients, void *dy,
                                int64_t row, int64_t column);

// dx of the skip: a patch gets a quarter of what its output got, a prefix token all of it.
int vitresnas_reduction_skip(const VitresnasReduction *shape, const void *dout, void *dx);
}
