#include "cpu/variable_patch_embedding.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/bind.h"

namespace {

// What (images, channels, side, patch, *strides) say in Python.
using Sizes = std::array<int64_t, 8>;

VitresnasPatches patches(int dtype, int threads, const Sizes &n) {
    return {dtype, threads, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]};
}

}  // namespace

void bind_variable_patch_embedding(pybind11::module_ &m) {
    m.def("patches_gather",
          [](int dtype, int threads, const Sizes &sizes, uintptr_t trunk, uintptr_t columns) {
              const auto shape = patches(dtype, threads, sizes);
              const pybind11::gil_scoped_release released;
              return vitresnas_patches_gather(&shape, pointer(trunk), pointer(columns));
          });
    m.def("patches_scatter",
          [](int dtype, int threads, const Sizes &sizes, uintptr_t columns, uintptr_t trunk) {
              const auto shape = patches(dtype, threads, sizes);
              const pybind11::gil_scoped_release released;
              return vitresnas_patches_scatter(&shape, pointer(columns), pointer(trunk));
          });
    m.def(
        "patches_forward",
        [](int dtype, uintptr_t products, uintptr_t bias, uintptr_t prefix_tokens,
           uintptr_t position, uintptr_t out, int64_t images, int64_t prefix, int64_t patches,
           int64_t channels, int64_t width, int threads) {
            return vitresnas_patches_forward(dtype, pointer(products), pointer(bias),
                                             pointer(prefix_tokens), pointer(position),
                                             pointer(out), images, prefix, patches, channels,
                                             width, threads);
        },
        release());
}
