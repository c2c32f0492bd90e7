// What surrounds the matrix products of a variable-width patch embedding. See variable_patch_embedding.cpp.
#pragma once

#include <cstdint>

// A trunk (images, channels, side * patch, side * patch) of `dtype` with any strides, counted in elements.
struct VitresnasPatches {
    int dtype, threads;
    int64_t images, channels, side, patch;
    int64_t image_stride, channel_stride, row_stride, column_stride;
};

extern "C" {

// columns (images * side * side, channels * patch * patch), float, or double where dtype is float64: one
// row per patch, in the order (channel, row, column) of a convolution's weight.
int vitresnas_patches_gather(const VitresnasPatches *shape, const void *trunk, void *columns);

// The way back: patches do not overlap, so every element of the trunk is written once.
int vitresnas_patches_scatter(const VitresnasPatches *shape, const void *columns, void *trunk);

// out (images, prefix + patches, channels) of `dtype`: products (images * patches, width) + bias +
// position, after prefix_tokens + position; the first `width` columns, zero to the next 16. All inputs
// are float, or double where dtype is float64.
int vitresnas_patches_forward(int dtype, const void *products, const void *bias,
                              const void *prefix_tokens, const void *position, void *out,
                              int64_t images, int64_t prefix, int64_t patches, int64_t channels,
                              int64_t width, int threads);
}
