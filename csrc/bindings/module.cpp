// The module vitresnas._C. No torch, no policy; called from vitresnas/ops/ only.

#include "bindings/bind.h"

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled kernels on raw pointers; see csrc/.";
    bind_device(m);
    bind_masked_layer_norm(m);
    bind_variable_linear(m);
    bind_token_sums(m);
    bind_variable_patch_embedding(m);
    bind_variable_reduction(m);
    bind_variable_attention(m);
    bind_variable_attention_cuda(m);
}
