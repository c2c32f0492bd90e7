// One bind_<op>() per op, each in a file of its own beside this one. Addresses come in as integers
// (`tensor.data_ptr()`), status codes go out (csrc/status.h); typed in vitresnas/_C.pyi.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

using release = pybind11::call_guard<pybind11::gil_scoped_release>;

template <typename T = void> T *pointer(uintptr_t address) {
    return reinterpret_cast<T *>(address);
}

void bind_device(pybind11::module_ &m);
void bind_masked_layer_norm(pybind11::module_ &m);
void bind_variable_linear(pybind11::module_ &m);
void bind_token_sums(pybind11::module_ &m);
void bind_variable_patch_embedding(pybind11::module_ &m);
void bind_variable_reduction(pybind11::module_ &m);
void bind_variable_attention(pybind11::module_ &m);
void bind_variable_attention_cuda(pybind11::module_ &m);
