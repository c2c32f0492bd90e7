#include "bindings/bind.h"
#ifdef VITRESNAS_HAS_CUDA
#include "cuda/variable_attention.h"
#endif

#ifdef VITRESNAS_HAS_CUDA
namespace {
AttentionSizes sizes(int64_t images, int64_t groups, int64_t heads, double scale) {
    return {static_cast<int>(images), static_cast<int>(images / groups), static_cast<int>(heads),
            static_cast<float>(scale)};
}
}  // namespace
#endif

void bind_variable_attention_cuda([[maybe_unused]] pybind11::module_ &m) {
#ifdef VITRESNAS_HAS_CUDA
    m.def("variable_attention_cuda_prepare", &vitresnas_variable_attention_cuda_prepare);
    m.def("variable_attention_cuda_forward",
          [](int dtype, uintptr_t qkv, uintptr_t heads, uintptr_t out, uintptr_t lse,
             int64_t images, int64_t groups, int64_t tokens, int64_t storage_heads,
             int64_t head_dim, double scale, uintptr_t stream) {
              const AttentionForward arguments{pointer(qkv), pointer<const int32_t>(heads),
                                               pointer(out), pointer<float>(lse),
                                               sizes(images, groups, storage_heads, scale)};
              return vitresnas_variable_attention_cuda_forward(dtype, tokens, head_dim, &arguments,
                                                               pointer(stream));
          });
    m.def("variable_attention_cuda_backward",
          [](int dtype, uintptr_t dout, uintptr_t qkv, uintptr_t out, uintptr_t lse,
             uintptr_t heads, uintptr_t dqkv, int64_t images, int64_t groups, int64_t tokens,
             int64_t storage_heads, int64_t head_dim, double scale, uintptr_t stream) {
              const AttentionBackward arguments{
                  pointer(dout),          pointer(qkv),
                  pointer(out),           pointer<const float>(lse),
                  pointer<const int32_t>(heads), pointer(dqkv),
                  sizes(images, groups, storage_heads, scale)};
              return vitresnas_variable_attention_cuda_backward(dtype, tokens, head_dim,
                                                                &arguments, pointer(stream));
          });
#endif
}
