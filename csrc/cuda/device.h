// What GPUs are there. Safe to call on a machine without a driver: the answer is then a code.
#pragma once

#include <cstdint>

struct VitresnasDevice {
    char name[256];
    int major, minor;      // compute capability
    int multiprocessors;
    int64_t bytes;         // global memory
};

extern "C" {
int vitresnas_cuda_versions(int *driver, int *runtime);  // e.g. 13000; a driver of 0 is none
int vitresnas_cuda_device_count(int *count);
int vitresnas_cuda_device(int index, VitresnasDevice *device);
const char *vitresnas_cuda_message(int code);
}
