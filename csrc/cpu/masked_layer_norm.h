// Layer normalisation over the first widths[g] channels of group g. See masked_layer_norm.cpp.
#pragma once

#include <cstdint>

extern "C" {

// x: (rows, channels) of x_dtype, y: the same of y_dtype (both float64, or each float32 or bfloat16);
// rows come in `groups` equal contiguous blocks. weight, bias: (channels,), mean, rstd: (rows,), all
// float, or double where x is. What y holds beyond a width is zero: to the end of the row, or where
// `padded` to the next multiple of 16, and then nothing is written behind it. Returns a status.
int vitresnas_masked_layer_norm_forward(int x_dtype, int y_dtype, const void *x,
                                        const void *weight, const void *bias,
                                        const int32_t *widths, void *y, void *mean, void *rstd,
                                        int64_t rows, int64_t channels, int64_t groups, double eps,
                                        bool padded, int threads);

// dy: as y. dx: as x. residual: as x, or null: a gradient added to dx on the first skip_widths[g] (at
// least widths[g]) columns of group g. dweight, dbias: (channels,); partials: workspace of
// (groups * chunks, 2, channels), all in the accumulator type. Each group's rows are cut into `chunks`
// runs whose sums are added in order, so the result does not depend on the number of threads.
int vitresnas_masked_layer_norm_backward(int x_dtype, int y_dtype, const void *dy, const void *x,
                                         const void *mean, const void *rstd, const void *weight,
                                         const int32_t *widths, const void *residual,
                                         const int32_t *skip_widths, void *dx, void *partials,
                                         void *dweight, void *dbias, int64_t rows,
                                         int64_t channels, int64_t groups, int64_t chunks,
                                         bool padded, int threads);

}
