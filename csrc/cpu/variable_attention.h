// Attention over the first heads[g] heads of each image of group g. See variable_attention.cpp.
#pragma once

#include <cstdint>

extern "C" {

// What both directions share. qkv, dqkv: (images, tokens, 3, most_heads, head_dim) of `dtype`; out,
// dout: (images, tokens, most_heads, head_dim); lse: (images, most_heads, tokens) float, or double
// where dtype is float64. Images come in `groups` equal runs; heads: (groups,). scratch: for each of
// `threads` as many numbers of lse's type as vitresnas_variable_attention_scratch says.
struct VitresnasAttention {
    int dtype;
    int64_t images, tokens, most_heads, head_dim, groups;
    const int32_t *heads;
    double scale;
    void *scratch;
    int threads;
};

int64_t vitresnas_variable_attention_scratch(int64_t tokens, int64_t head_dim);

int vitresnas_variable_attention_forward(const VitresnasAttention *shape, const void *qkv,
                                         void *out, void *lse);

int vitresnas_variable_attention_backward(const VitresnasAttention *shape, const void *dout,
                                          const void *qkv, const void *out, const void *lse,
                                          void *dqkv);
}
