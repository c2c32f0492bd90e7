// Layer normalisation over the first widths[g] channels of group g, on a GPU. See the .cu file.
#pragma once

#include <cstdint>

extern "C" {

// As in cpu/masked_layer_norm.h, with addresses on the GPU that are multiples of 16. x_dtype, y_dtype:
// float32 or bfloat16; channels: a multiple of 8, at most 1024. weight, bias, mean, rstd, partials,
// dweight, dbias: float. Queued on `stream`, of the current device; nothing waits, nothing is read
// on the host. Widths beyond [0, channels] are clamped. Returns a status.
int vitresnas_masked_layer_norm_forward_cuda(int x_dtype, int y_dtype, const void *x,
                                             const void *weight, const void *bias,
                                             const int32_t *widths, void *y, void *mean,
                                             void *rstd, int64_t rows, int64_t channels,
                                             int64_t groups, double eps, bool padded,
                                             uintptr_t stream);

int vitresnas_masked_layer_norm_backward_cuda(int x_dtype, int y_dtype, const void *dy,
                                              const void *x, const void *mean, const void *rstd,
                                              const void *weight, const int32_t *widths,
                                              const void *residual, const int32_t *skip_widths,
                                              void *dx, void *partials, void *dweight, void *dbias,
                                              int64_t rows, int64_t channels, int64_t groups,
                                              int64_t chunks, bool padded, uintptr_t stream);

}
