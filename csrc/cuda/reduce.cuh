// Sums and maxima over a warp and over a block whose order is fixed, so that results repeat bit for bit.
#pragma once

#include "common/kxk/team.h"
#include "cuda/launch.cuh"

namespace mtl {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Every lane adds the same pairs, if in a different order: all lanes get the same bits.
__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

__device__ __forceinline__ double warp_max(double value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value = fmax(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// Sum over the block, warps in order; every thread gets it. Takes a double of shared memory per warp.
__device__ __forceinline__ double block_sum(double value, double* shared) {
  value = warp_sum(value);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  double total = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarpSize; ++warp) total += shared[warp];
  return total;
}

// The lanes of one warp as a team of common/kxk/team.h. Blocks that use it consist of whole warps.
struct WarpTeam {
  int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  static constexpr int size = kWarpSize;
  __device__ void sync() const { __syncwarp(); }
  __device__ double sum(double value) const { return warp_sum(value); }
  __device__ double max(double value) const { return warp_max(value); }
};

}  // namespace mtl
