// The module vitresnas._C: integers in (addresses, sizes), status codes out. No torch, no policy.
// Typed in vitresnas/_C.pyi; called from vitresnas/ops/ only.

#include <pybind11/pybind11.h>

#include "cpu/masked_layer_norm.h"
#ifdef VITRESNAS_HAS_CUDA
#include "cuda/device.h"
#endif

namespace py = pybind11;

namespace {

template <typename T = void> T *pointer(uintptr_t address) {
    return reinterpret_cast<T *>(address);
}

using release = py::call_guard<py::gil_scoped_release>;

#ifdef VITRESNAS_HAS_CUDA
py::dict cuda_devices() {
    int driver = 0, runtime = 0, count = 0;
    vitresnas_cuda_versions(&driver, &runtime);
    const int code = vitresnas_cuda_device_count(&count);
    py::list devices;
    for (int index = 0; index < count; ++index) {
        VitresnasDevice device{};
        if (vitresnas_cuda_device(index, &device)) continue;
        py::dict entry;
        entry["name"] = device.name;
        entry["capability"] = py::make_tuple(device.major, device.minor);
        entry["multiprocessors"] = device.multiprocessors;
        entry["bytes"] = device.bytes;
        devices.append(entry);
    }
    py::dict answer;
    answer["code"] = code;
    answer["message"] = vitresnas_cuda_message(code);
    answer["driver"] = driver;
    answer["runtime"] = runtime;
    answer["devices"] = devices;
    return answer;
}
#endif

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled kernels on raw pointers; see csrc/.";
#ifdef VITRESNAS_HAS_CUDA
    m.attr("has_cuda") = true;
    m.attr("cuda_architectures") = VITRESNAS_CUDA_ARCHITECTURES;
    m.def("cuda_devices", &cuda_devices);
#else
    m.attr("has_cuda") = false;
    m.attr("cuda_architectures") = "";
#endif

    m.def(
        "masked_layer_norm_forward",
        [](int dtype, uintptr_t x, uintptr_t weight, uintptr_t bias, uintptr_t widths, uintptr_t y,
           uintptr_t mean, uintptr_t rstd, int64_t rows, int64_t channels, int64_t groups,
           double eps, int threads) {
            return vitresnas_masked_layer_norm_forward(
                dtype, pointer(x), pointer(weight), pointer(bias), pointer<const int32_t>(widths),
                pointer(y), pointer(mean), pointer(rstd), rows, channels, groups, eps, threads);
        },
        release());
    m.def(
        "masked_layer_norm_backward",
        [](int dtype, uintptr_t dy, uintptr_t x, uintptr_t mean, uintptr_t rstd, uintptr_t weight,
           uintptr_t widths, uintptr_t dx, uintptr_t partials, uintptr_t dweight, uintptr_t dbias,
           int64_t rows, int64_t channels, int64_t groups, int64_t chunks, int threads) {
            return vitresnas_masked_layer_norm_backward(
                dtype, pointer(dy), pointer(x), pointer(mean), pointer(rstd), pointer(weight),
                pointer<const int32_t>(widths), pointer(dx), pointer(partials), pointer(dweight),
                pointer(dbias), rows, channels, groups, chunks, threads);
        },
        release());
}
