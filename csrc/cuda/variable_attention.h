// Attention of the first heads of each group on an NVIDIA GPU; see vitresnas/ops/variable_attention.py.
#pragma once

#include <cstdint>

struct AttentionSizes {
    int images, images_per_group, heads;  // heads: of the storage, not the active ones
    float scale;
};

struct AttentionForward {
    const void *qkv;       // (images, T, 3, heads, D)
    const int32_t *heads;  // (groups,) active heads, on the device
    void *out;             // (images, T, heads, D)
    float *lse;            // (images, heads, T), natural logarithm of the sums of exponentials
    AttentionSizes sizes;
};

struct AttentionBackward {
    const void *dout, *qkv, *out;
    const float *lse;
    const int32_t *heads;
    void *dqkv;  // (images, T, 3, heads, D)
    AttentionSizes sizes;
};

extern "C" {
// Lets every kernel have the shared memory it needs, and loads it; once per device, before a capture.
int vitresnas_variable_attention_cuda_prepare(void);
int vitresnas_variable_attention_cuda_forward(int dtype, int64_t tokens, int64_t head_dim,
                                              const AttentionForward *arguments, void *stream);
int vitresnas_variable_attention_cuda_backward(int dtype, int64_t tokens, int64_t head_dim,
                                               const AttentionBackward *arguments, void *stream);
}
