// The few names of the CUDA runtime that launchers and glue share, without kernels: the real ones, or the emulator's.
#pragma once

#if defined(MTL_EMULATION)

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "invalid value"; }

#else

#include <cuda_runtime_api.h>

#endif
