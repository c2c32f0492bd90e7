// What surrounds the matrix products of vitresnas/ops/variable_linear.py. See variable_linear.cpp.
#pragma once

#include <cstdint>

extern "C" {

// Common to all: a run of `rows` rows of one group; of each row `columns` count, and what is stored
// is zero from there to `padded`. Strides are in elements. `dtype` is the compute type (products,
// pre-activations), `wide` the type of y, residual and dy: `dtype` itself, or float beside bfloat16.
// bias, scale and sums are float, or double where dtype is double. Each returns a status.

// y = product + bias; product and y may be the same memory.
int vitresnas_linear_bias(int dtype, int wide, const void *product, int64_t product_stride,
                          const void *bias, void *y, int64_t y_stride, int64_t rows,
                          int64_t columns, int64_t padded, int threads);

// pre = product + bias, y = gelu(pre); pre may be null. One stride for pre and y.
int vitresnas_linear_gelu(int dtype, int wide, const void *product, int64_t product_stride, const void *bias,
                          void *pre, void *y, int64_t y_stride, int64_t rows, int64_t columns,
                          int64_t padded, int threads);

// y = residual + scale[image] * (product + bias), where row r is of image (first + r) / per_image.
// scale null: ones. product null: y = residual. One stride for residual and y.
int vitresnas_linear_residual(int dtype, int wide, const void *product, int64_t product_stride,
                              const void *bias, const void *residual, const void *scale, void *y,
                              int64_t y_stride, int64_t first, int64_t per_image, int64_t rows,
                              int64_t columns, int64_t padded, int threads);

// dx = product * gelu'(pre); product and dx may be the same memory. One stride for pre and dx.
int vitresnas_linear_gelu_backward(int dtype, int wide, const void *product, int64_t product_stride,
                                   const void *pre, void *dx, int64_t dx_stride, int64_t rows,
                                   int64_t columns, int64_t padded, int threads);

// scaled = scale[image] * dy, in `dtype` (not stored where null; scale as above), and
// dbias += the sums of scaled's columns before rounding. partials: workspace of
// (ceil(rows / VITRESNAS_LINEAR_RUN), columns); its rows are added in order, so that the result
// does not depend on the number of threads.
enum { VITRESNAS_LINEAR_RUN = 256 };
int vitresnas_linear_incoming(int dtype, int wide, const void *dy, int64_t dy_stride,
                              const void *scale, int64_t first, int64_t per_image, void *scaled,
                              int64_t scaled_stride, void *partials, void *dbias, int64_t rows,
                              int64_t columns, int threads);

}
