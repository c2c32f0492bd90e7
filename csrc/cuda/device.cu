// Device queries; every function returns a cudaError_t as an int and leaves no sticky error behind.

#include "cuda/device.h"

#include <cuda_runtime.h>

#include <cstring>

namespace {
int done(cudaError_t code) {
    cudaGetLastError();  // clears it: a failed query must not surface in somebody else's launch
    return static_cast<int>(code);
}
}  // namespace

int vitresnas_cuda_versions(int *driver, int *runtime) {
    *driver = *runtime = 0;
    const cudaError_t code = cudaDriverGetVersion(driver);
    return done(code != cudaSuccess ? code : cudaRuntimeGetVersion(runtime));
}

int vitresnas_cuda_device_count(int *count) {
    *count = 0;
    const cudaError_t code = cudaGetDeviceCount(count);
    if (code != cudaSuccess) *count = 0;
    return done(code);
}

int vitresnas_cuda_device(int index, VitresnasDevice *device) {
    cudaDeviceProp found;
    const cudaError_t code = cudaGetDeviceProperties(&found, index);
    if (code != cudaSuccess) return done(code);
    std::strncpy(device->name, found.name, sizeof device->name - 1);
    device->name[sizeof device->name - 1] = '\0';
    device->major = found.major;
    device->minor = found.minor;
    device->multiprocessors = found.multiProcessorCount;
    device->bytes = static_cast<int64_t>(found.totalGlobalMem);
    return done(cudaSuccess);
}

const char *vitresnas_cuda_message(int code) {
    return cudaGetErrorString(static_cast<cudaError_t>(code));
}
