// Gradients of what is added to every image: position embeddings, prefix tokens and biases.
#pragma once

#include <cstdint>

extern "C" {

// x: (images, tokens, channels) of `dtype`, of which group g's first widths[g] columns count; the rest
// is float, or double where dtype is float64. sums (tokens, channels): over the images, in their order;
// prefix_total and patch_total (channels): of the first `prefix` rows of sums, and of those after them.
// All of it is written. Threads share the tokens, so the result does not depend on their number.
int vitresnas_token_sums(int dtype, const void *x, const int32_t *widths, void *sums,
                         void *prefix_total, void *patch_total, int64_t images, int64_t tokens,
                         int64_t prefix, int64_t channels, int64_t groups, int threads);
}
