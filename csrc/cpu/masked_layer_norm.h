// Layer normalisation over the first widths[g] channels of group g. See masked_layer_norm.cpp.
#pragma once

#include <cstdint>

extern "C" {

// x, y: (rows, channels) of `dtype`; rows come in `groups` equal contiguous blocks. weight, bias:
// (channels,), mean, rstd: (rows,), all float, or double where dtype is float64. Returns a status.
int vitresnas_masked_layer_norm_forward(
    int dtype, const void *x, const void *weight, const void *bias, const int32_t *widths, void *y,
    void *mean, void *rstd, int64_t rows, int64_t channels, int64_t groups, double eps, int threads);

// dy, dx: as x. dweight, dbias: (channels,); partials: workspace of (groups * chunks, 2, channels),
// all in the accumulator type. Each group's rows are cut into `chunks` runs whose sums are added in
// order, so the result does not depend on the number of threads.
int vitresnas_masked_layer_norm_backward(
    int dtype, const void *dy, const void *x, const void *mean, const void *rstd,
    const void *weight, const int32_t *widths, void *dx, void *partials, void *dweight, void *dbias,
    int64_t rows, int64_t channels, int64_t groups, int64_t chunks, int threads);

}
