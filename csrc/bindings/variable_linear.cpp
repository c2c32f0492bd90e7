#include "cpu/variable_linear.h"

#include "bindings/bind.h"

void bind_variable_linear(pybind11::module_ &m) {
    m.attr("linear_run") = static_cast<int>(VITRESNAS_LINEAR_RUN);
    m.def(
        "linear_bias",
        [](int dtype, int wide, uintptr_t product, int64_t product_stride, uintptr_t bias,
           uintptr_t y, int64_t y_stride, int64_t rows, int64_t columns, int64_t padded,
           int threads) {
            return vitresnas_linear_bias(dtype, wide, pointer(product), product_stride,
                                         pointer(bias), pointer(y), y_stride, rows, columns, padded,
                                         threads);
        },
        release());
    m.def(
        "linear_gelu",
        [](int dtype, int wide, uintptr_t product, int64_t product_stride, uintptr_t bias,
           uintptr_t pre, uintptr_t y, int64_t y_stride, int64_t rows, int64_t columns, int64_t padded,
           int threads) {
            return vitresnas_linear_gelu(dtype, wide, pointer(product), product_stride, pointer(bias),
                                         pointer(pre), pointer(y), y_stride, rows, columns, padded,
                                         threads);
        },
        release());
    m.def(
        "linear_residual",
        [](int dtype, int wide, uintptr_t product, int64_t product_stride, uintptr_t bias,
           uintptr_t residual, uintptr_t scale, uintptr_t y, int64_t y_stride, int64_t first,
           int64_t per_image, int64_t rows, int64_t columns, int64_t padded, int threads) {
            return vitresnas_linear_residual(dtype, wide, pointer(product), product_stride,
                                             pointer(bias), pointer(residual), pointer(scale),
                                             pointer(y), y_stride, first, per_image, rows, columns,
                                             padded, threads);
        },
        release());
    m.def(
        "linear_gelu_backward",
        [](int dtype, int wide, uintptr_t product, int64_t product_stride, uintptr_t pre,
           uintptr_t dx,
           int64_t dx_stride, int64_t rows, int64_t columns, int64_t padded, int threads) {
            return vitresnas_linear_gelu_backward(dtype, wide, pointer(product), product_stride,
                                                  pointer(pre), pointer(dx), dx_stride, rows,
                                                  columns, padded, threads);
        },
        release());
    m.def(
        "linear_incoming",
        [](int dtype, int wide, uintptr_t dy, int64_t dy_stride, uintptr_t scale, int64_t first,
           int64_t per_image, uintptr_t scaled, int64_t scaled_stride, uintptr_t partials,
           uintptr_t dbias, int64_t rows, int64_t columns, int threads) {
            return vitresnas_linear_incoming(dtype, wide, pointer(dy), dy_stride, pointer(scale),
                                             first, per_image, pointer(scaled), scaled_stride,
                                             pointer(partials), pointer(dbias), rows, columns,
                                             threads);
        },
        release());
}
