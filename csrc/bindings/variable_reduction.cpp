#include "cpu/variable_reduction.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/bind.h"
#include "index/reduction.h"

namespace {

// What (images, side, prefix, channels_in, channels_out, width_in, width_out) say in Python.
using Sizes = std::array<int64_t, 7>;

VitresnasReduction reduction(int dtype, int threads, const Sizes &n) {
    return {dtype, threads, n[0], n[1], n[2], n[3], n[4], n[5], n[6]};
}

}  // namespace

void bind_variable_reduction(pybind11::module_ &m) {
    m.def("token_at", &vitresnas::token_at);
    m.def(
        "gather_tokens",
        [](int dtype, uintptr_t x, uintptr_t columns, int64_t images, int64_t prefix, int64_t side,
           int64_t half, int64_t channels, int64_t width, int64_t stride, int64_t down,
           int64_t right, int threads) {
            return vitresnas_gather_tokens(dtype, pointer(x), pointer(columns), images, prefix,
                                           side, half, channels, width, stride, down, right,
                                           threads);
        },
        release());
    m.def("reduction_forward",
          [](int dtype, int threads, const Sizes &sizes, uintptr_t patches, uintptr_t prefixes,
             uintptr_t x, uintptr_t bias, uintptr_t position, uintptr_t prefix_bias,
             uintptr_t out) {
              const auto shape = reduction(dtype, threads, sizes);
              const pybind11::gil_scoped_release released;
              return vitresnas_reduction_forward(&shape, pointer(patches), pointer(prefixes),
                                                 pointer(x), pointer(bias), pointer(position),
                                                 pointer(prefix_bias), pointer(out));
          });
    m.def("reduction_scatter", [](int dtype, int threads, const Sizes &sizes, uintptr_t gradients,
                                  uintptr_t dy, int64_t row, int64_t column) {
        const auto shape = reduction(dtype, threads, sizes);
        const pybind11::gil_scoped_release released;
        return vitresnas_reduction_scatter(&shape, pointer(gradients), pointer(dy), row, column);
    });
    m.def("reduction_skip",
          [](int dtype, int threads, const Sizes &sizes, uintptr_t dout, uintptr_t dx) {
              const auto shape = reduction(dtype, threads, sizes);
              const pybind11::gil_scoped_release released;
              return vitresnas_reduction_skip(&shape, pointer(dout), pointer(dx));
          });
}
