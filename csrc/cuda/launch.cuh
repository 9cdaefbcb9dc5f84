// The only file that knows nvcc from g++. Kernels and launchers are written against it, so that the very same source is
// compiled by nvcc for the GPU and by g++ for the emulator (csrc/emulation/cuemu.h), launch sizes included.
//
//   MTL_LAUNCH(kernel, grid, block, shared_bytes, stream)(arguments...)
//   MTL_DYN_SHARED(name)        the block's dynamic shared memory, unsigned char* aligned to 16 bytes
//   MTL_GRID_CONSTANT(Type)     a large by-value kernel argument that threads read but never write
//   allow_shared_memory(kernel, bytes)
#pragma once

#include "cuda/runtime.h"

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#define MTL_LAUNCH(kernel, grid, block, shared_bytes, stream) kernel<<<grid, block, shared_bytes, stream>>>
#define MTL_DYN_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define MTL_GRID_CONSTANT(Type) const __grid_constant__ Type

#else

#include "emulation/cuemu.h"

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

#define MTL_LAUNCH(kernel, grid, block, shared_bytes, stream)                \
  [&](auto&&... arguments) {                                                 \
    static_cast<void>(stream); /* a launch here runs to its end */           \
    cuemu::launch(grid, block, shared_bytes, [&] { kernel(arguments...); }); \
  }
#define MTL_DYN_SHARED(name) unsigned char* const name = cuemu::dyn_smem()
// By reference: a copy of a 31 KB table on every fiber's stack would cost 3 to 7 times the run time.
#define MTL_GRID_CONSTANT(Type) const Type&

#endif

namespace mtl {

// Above 48 KB a kernel has to ask for its dynamic shared memory.
template <class Kernel>
cudaError_t allow_shared_memory(Kernel* kernel, int bytes) {
  if (bytes <= 48 * 1024) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

}  // namespace mtl
