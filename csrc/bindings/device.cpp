#include "bindings/bind.h"
#ifdef VITRESNAS_HAS_CUDA
#include "cuda/device.h"
#endif

namespace py = pybind11;

#ifdef VITRESNAS_HAS_CUDA
namespace {
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
}  // namespace
#endif

void bind_device(py::module_ &m) {
#ifdef VITRESNAS_HAS_CUDA
    m.attr("has_cuda") = true;
    m.attr("cuda_architectures") = VITRESNAS_CUDA_ARCHITECTURES;
    m.def("cuda_devices", &cuda_devices);
    m.def("cuda_message", &vitresnas_cuda_message);
#else
    m.attr("has_cuda") = false;
    m.attr("cuda_architectures") = "";
#endif
}
