#include "cpu/masked_layer_norm.h"
#include "cuda/masked_layer_norm.h"

#include "bindings/bind.h"

void bind_masked_layer_norm(pybind11::module_ &m) {
    m.def(
        "masked_layer_norm_forward",
        [](int x_dtype, int y_dtype, uintptr_t x, uintptr_t weight, uintptr_t bias,
           uintptr_t widths, uintptr_t y, uintptr_t mean, uintptr_t rstd, int64_t rows,
           int64_t channels, int64_t groups, double eps, bool padded, int threads) {
            return vitresnas_masked_layer_norm_forward(
                x_dtype, y_dtype, pointer(x), pointer(weight), pointer(bias),
                pointer<const int32_t>(widths), pointer(y), pointer(mean), pointer(rstd), rows,
                channels, groups, eps, padded, threads);
        },
        release());
    m.def(
        "masked_layer_norm_backward",
        [](int x_dtype, int y_dtype, uintptr_t dy, uintptr_t x, uintptr_t mean, uintptr_t rstd,
           uintptr_t weight, uintptr_t widths, uintptr_t residual, uintptr_t skip_widths,
           uintptr_t dx, uintptr_t partials, uintptr_t dweight, uintptr_t dbias, int64_t rows,
           int64_t channels, int64_t groups, int64_t chunks, bool padded, int threads) {
            return vitresnas_masked_layer_norm_backward(
                x_dtype, y_dtype, pointer(dy), pointer(x), pointer(mean), pointer(rstd),
                pointer(weight), pointer<const int32_t>(widths), pointer(residual),
                pointer<const int32_t>(skip_widths), pointer(dx), pointer(partials),
                pointer(dweight), pointer(dbias), rows, channels, groups, chunks, padded, threads);
        },
        release());
#ifdef VITRESNAS_HAS_CUDA
    m.def("masked_layer_norm_forward_cuda",
          [](int x_dtype, int y_dtype, uintptr_t x, uintptr_t weight, uintptr_t bias,
             uintptr_t widths, uintptr_t y, uintptr_t mean, uintptr_t rstd, int64_t rows,
             int64_t channels, int64_t groups, double eps, bool padded, uintptr_t stream) {
              return vitresnas_masked_layer_norm_forward_cuda(
                  x_dtype, y_dtype, pointer(x), pointer(weight), pointer(bias),
                  pointer<const int32_t>(widths), pointer(y), pointer(mean), pointer(rstd), rows,
                  channels, groups, eps, padded, stream);
          });
    m.def("masked_layer_norm_backward_cuda",
          [](int x_dtype, int y_dtype, uintptr_t dy, uintptr_t x, uintptr_t mean, uintptr_t rstd,
             uintptr_t weight, uintptr_t widths, uintptr_t residual, uintptr_t skip_widths,
             uintptr_t dx, uintptr_t partials, uintptr_t dweight, uintptr_t dbias, int64_t rows,
             int64_t channels, int64_t groups, int64_t chunks, bool padded, uintptr_t stream) {
              return vitresnas_masked_layer_norm_backward_cuda(
                  x_dtype, y_dtype, pointer(dy), pointer(x), pointer(mean), pointer(rstd),
                  pointer(weight), pointer<const int32_t>(widths), pointer(residual),
                  pointer<const int32_t>(skip_widths), pointer(dx), pointer(partials),
                  pointer(dweight), pointer(dbias), rows, channels, groups, chunks, padded, stream);
          });
#endif
}
