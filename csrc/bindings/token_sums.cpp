#include "cpu/token_sums.h"

#include "bindings/bind.h"

void bind_token_sums(pybind11::module_ &m) {
    m.def(
        "token_sums",
        [](int dtype, uintptr_t x, uintptr_t widths, uintptr_t sums, uintptr_t prefix_total,
           uintptr_t patch_total, int64_t images, int64_t tokens, int64_t prefix,
           int64_t channels, int64_t groups, int threads) {
            return vitresnas_token_sums(dtype, pointer(x), pointer<const int32_t>(widths),
                                        pointer(sums), pointer(prefix_total),
                                        pointer(patch_total), images, tokens, prefix, channels,
                                        groups, threads);
        },
        release());
}
