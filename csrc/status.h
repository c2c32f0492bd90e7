// What the extern "C" functions return instead of throwing; Python turns it into a sentence.
#pragma once

enum VitresnasStatus : int {
    VITRESNAS_OK = 0,
    VITRESNAS_BAD_DTYPE = 1,   // no instantiation for this storage type
    VITRESNAS_BAD_WIDTH = 2,   // a width below 0 or above the number of channels
    VITRESNAS_BAD_SHAPE = 3,   // a negative size, or rows that do not divide into the groups
    VITRESNAS_CUDA_ERROR = 1000,  // plus the cudaError_t of a launch that failed
};

// Storage types, numbered as in vitresnas/ops/native.py.
enum VitresnasDtype : int {
    VITRESNAS_FLOAT32 = 0,
    VITRESNAS_FLOAT64 = 1,
    VITRESNAS_BFLOAT16 = 2,
    VITRESNAS_FLOAT16 = 3,  // GPU kernels alone
};
