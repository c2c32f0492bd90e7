#include "cpu/variable_attention.h"

#include "bindings/bind.h"

namespace {
VitresnasAttention shape(int dtype, int64_t images, int64_t tokens, int64_t most_heads,
                         int64_t head_dim, int64_t groups, uintptr_t heads, double scale,
                         uintptr_t scratch, int threads) {
    return {dtype,  images, tokens, most_heads, head_dim, groups, pointer<const int32_t>(heads),
            scale, pointer(scratch), threads};
}
}  // namespace

void bind_variable_attention(pybind11::module_ &m) {
    m.def("variable_attention_scratch", &vitresnas_variable_attention_scratch);
    m.def(
        "variable_attention_forward",
        [](uintptr_t qkv, uintptr_t out, uintptr_t lse, int dtype, int64_t images, int64_t tokens,
           int64_t most_heads, int64_t head_dim, int64_t groups, uintptr_t heads, double scale,
           uintptr_t scratch, int threads) {
            const auto s = shape(dtype, images, tokens, most_heads, head_dim, groups, heads, scale,
                                 scratch, threads);
            return vitresnas_variable_attention_forward(&s, pointer(qkv), pointer(out),
                                                        pointer(lse));
        },
        release());
    m.def(
        "variable_attention_backward",
        [](uintptr_t dout, uintptr_t qkv, uintptr_t out, uintptr_t lse, uintptr_t dqkv, int dtype,
           int64_t images, int64_t tokens, int64_t most_heads, int64_t head_dim, int64_t groups,
           uintptr_t heads, double scale, uintptr_t scratch, int threads) {
            const auto s = shape(dtype, images, tokens, most_heads, head_dim, groups, heads, scale,
                                 scratch, threads);
            return vitresnas_variable_attention_backward(&s, pointer(dout), pointer(qkv),
                                                         pointer(out), pointer(lse), pointer(dqkv));
        },
        release());
}
