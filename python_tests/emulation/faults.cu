// Kernels with one planted fault each, and clean ones, for the test of the emulator. `faults NAME` runs one of them and
// compares its result; python_tests/test_emulator.py knows what must come out. The comment `FAULT NAME` marks the line
// that a report must name: its own, or the next one if it has a line to itself.
//
// All kernels reverse the numbers of their block: out[b n + t] = in[b n + n - 1 - t], n = blockDim.x.
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string_view>
#include <vector>

#include "cuda/launch.cuh"

namespace {

using Kernel = void(const float* in, float* out);

__device__ int thread_offset() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ int mirrored_offset() { return static_cast<int>((blockIdx.x + 1) * blockDim.x - 1 - threadIdx.x); }

// --- clean ----------------------------------------------------------------------------------------------------------

__global__ void clean_block(const float* in, float* out) {
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = in[thread_offset()];
    __syncthreads();
    out[thread_offset()] = tile[blockDim.x - 1 - threadIdx.x];
    __syncthreads();
  }
}

__global__ void clean_warp(const float* in, float* out) {  // 32 threads
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  tile[threadIdx.x] = __ldg(in + thread_offset());
  __syncwarp();
  out[thread_offset()] = tile[31 - threadIdx.x];
}

// Every word of the warp and block vocabulary once; the result is NaN if one of them returns something wrong.
__global__ void clean_vocabulary(const float* in, float* out) {  // 48 threads: the second warp has 16 lanes
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  int* counters = reinterpret_cast<int*>(tile + blockDim.x);
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, lanes = t < 32 ? 32 : 16;
  const unsigned mask = t < 32 ? 0xffffffffu : 0xffffu;
  if (t < 2) counters[t] = 0;
  const bool head = __syncthreads_or(t == 40) && !__syncthreads_and(t != 40) && __syncthreads_count(t < 7) == 7;
  atomicAdd(counters, 2);
  atomicMax(counters + 1, t);
  __syncthreads();
  bool right = head && counters[0] == 96 && counters[1] == 47;
  right &= __shfl_sync(mask, t, 3) == t - lane + 3 && __shfl_sync(mask, t, 3, 8) == t - lane % 8 + 3;
  right &= __shfl_up_sync(mask, t, 1, 16) == (lane % 16 == 0 ? t : t - 1);
  right &= __shfl_down_sync(mask, t, 2, 8) == (lane % 8 < 6 ? t + 2 : t);
  right &= __shfl_xor_sync(mask, t + 0.5, 5) == (t ^ 5) + 0.5;
  right &= __ballot_sync(mask, lane % 2) == (mask & 0xaaaaaaaau);
  right &= __any_sync(mask, lane == 9) && !__all_sync(mask, lane != 9) && __all_sync(mask, lane < lanes);
  right &= min(3, t) <= 3 && max(1.5f, NAN) == 1.5f && __popc(mask) == lanes;
  right &= __umulhi(0x80000000u, 6u) == 3u && __fmaf_rn(2, 3, 1) == __fadd_rn(__fmul_rn(2, 3), 1) && rsqrtf(4) == 0.5f;
  tile[t] = right ? in[thread_offset()] : NAN;
  __syncthreads();
  out[thread_offset()] = tile[blockDim.x - 1 - t];
}

// --- wrong accesses -------------------------------------------------------------------------------------------------

__global__ void shared_overflow(const float* in, float* out) {
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  tile[threadIdx.x + 1] = in[thread_offset()];  // FAULT shared_overflow
  __syncthreads();
  out[thread_offset()] = tile[blockDim.x - threadIdx.x];
}

__global__ void global_overflow(const float* in, float* out) {
  out[thread_offset() + 1] = in[mirrored_offset()];  // FAULT global_overflow
}

__global__ void misaligned(const float* in, float* out) {
  const int pair = mirrored_offset() - 1;
  out[thread_offset()] = pair < 0 ? in[0] : reinterpret_cast<const float2*>(in + pair)->y;  // FAULT misaligned
}

__global__ void unwritten_shared(const float* in, float* out) {
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  if (threadIdx.x != 5) tile[threadIdx.x] = in[thread_offset()];
  __syncthreads();
  out[thread_offset()] = tile[blockDim.x - 1 - threadIdx.x];
}

// --- missing order --------------------------------------------------------------------------------------------------

__global__ void missing_barrier(const float* in, float* out) {
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  tile[threadIdx.x] = in[thread_offset()];
  out[thread_offset()] = tile[blockDim.x - 1 - threadIdx.x];  // FAULT missing_barrier
}

__global__ void missing_second_barrier(const float* in, float* out) {
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  tile[threadIdx.x] = in[thread_offset()];
  __syncthreads();
  out[thread_offset()] = tile[blockDim.x - 1 - threadIdx.x];
  tile[threadIdx.x] = 0;  // FAULT missing_second_barrier
}

__global__ void missing_syncwarp(const float* in, float* out) {
  MTL_DYN_SHARED(raw);
  float* tile = reinterpret_cast<float*>(raw);
  tile[threadIdx.x] = in[thread_offset()];
  __shfl_sync(0xffffffffu, 1, 0);                 // a meeting, but no order of memory
  out[thread_offset()] = tile[31 - threadIdx.x];  // FAULT missing_syncwarp
}

__global__ void racing_blocks(const float* in, float* out) {
  const unsigned n = blockDim.x;
  for (unsigned b = 0; b < gridDim.x; ++b) {
    out[b * n + threadIdx.x] = in[b * n + n - 1 - threadIdx.x];  // FAULT racing_blocks
  }
}

// --- wrong meetings -------------------------------------------------------------------------------------------------

__global__ void divergent_barrier(const float* in, float* out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();  // FAULT divergent_barrier
  }
  out[thread_offset()] = in[mirrored_offset()];
}

__global__ void skipped_barrier(const float* in, float* out) {
  out[thread_offset()] = in[mirrored_offset()];
  if (threadIdx.x == 7) return;
  __syncthreads();  // FAULT skipped_barrier
}

__global__ void divergent_shuffle(const float* in, float* out) {
  const int lane = static_cast<int>(threadIdx.x);
  float value = in[thread_offset()];
  if (lane < 16) {
    value = __shfl_sync(0xffffffffu, value, 31 - lane);
  } else {
    value = __shfl_sync(0xffffffffu, value, 31 - lane);  // FAULT divergent_shuffle
  }
  out[thread_offset()] = value;
}

__global__ void absent_source(const float* in, float* out) {
  const unsigned half = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  out[thread_offset()] = __shfl_sync(half, in[thread_offset()], 31 - threadIdx.x);  // FAULT absent_source
}

__global__ void absent_lane(const float* in, float* out) {                                // 48 threads
  out[thread_offset()] = in[mirrored_offset()] + 0 * __shfl_xor_sync(0xffffffffu, 1, 1);  // FAULT absent_lane
}

__global__ void left_lane(const float* in, float* out) {
  out[thread_offset()] = in[mirrored_offset()];
  if (threadIdx.x == 0) return;
  __syncwarp();  // FAULT left_lane
}

__global__ void foreign_mask(const float* in, float* out) {
  out[thread_offset()] = in[mirrored_offset()] + 0 * __any_sync(0xfffffffeu, 1);  // FAULT foreign_mask
}

__global__ void deadlock(const float* in, float* out) {
  out[thread_offset()] = in[mirrored_offset()];
  if (threadIdx.x == 0) {
    __syncthreads();
  } else {
    __syncwarp();  // FAULT deadlock
  }
}

// --------------------------------------------------------------------------------------------------------------------

struct Case {
  const char* name;
  Kernel* kernel;
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
};

constexpr size_t kTile = 48 * sizeof(float), kWarpTile = 32 * sizeof(float);
const Case kCases[] = {
    {"clean_block", clean_block, 5, 48, kTile},
    {"clean_warp", clean_warp, 5, 32, kWarpTile},
    {"clean_vocabulary", clean_vocabulary, 5, 48, kTile + 2 * sizeof(int)},
    {"shared_overflow", shared_overflow, 5, 48, kTile},
    {"global_overflow", global_overflow, 5, 48, 0},
    {"misaligned", misaligned, 5, 48, 0},
    {"unwritten_shared", unwritten_shared, 5, 48, kTile},
    {"missing_barrier", missing_barrier, 5, 48, kTile},
    {"missing_second_barrier", missing_second_barrier, 5, 48, kTile},
    {"missing_syncwarp", missing_syncwarp, 5, 32, kWarpTile},
    {"racing_blocks", racing_blocks, 5, 48, 0},
    {"divergent_barrier", divergent_barrier, 5, 48, 0},
    {"skipped_barrier", skipped_barrier, 5, 48, 0},
    {"divergent_shuffle", divergent_shuffle, 5, 32, 0},
    {"absent_source", absent_source, 5, 32, 0},
    {"absent_lane", absent_lane, 5, 48, 0},
    {"left_lane", left_lane, 5, 32, 0},
    {"foreign_mask", foreign_mask, 5, 32, 0},
    {"deadlock", deadlock, 5, 32, 0},
    {"large_block", clean_block, 1, 1025, 1025 * sizeof(float)},
    {"empty_grid", clean_block, 0, 48, kTile},
    {"large_shared", clean_block, 1, 48, 99 * 1024 + 1},
};

constexpr int kWrongResult = 3;

int run(const Case& c) {
  const size_t n = c.block.x, total = c.grid.x * n;
  std::vector<float> in(total), out(total);
  std::iota(in.begin(), in.end(), 1.0f);
  // FAULT large_block empty_grid large_shared
  MTL_LAUNCH(c.kernel, c.grid, c.block, c.shared_bytes, nullptr)(in.data(), out.data());
  for (size_t i = 0; i < total; ++i) {
    const float expected = in[i / n * n + n - 1 - i % n];
    if (out[i] == expected) continue;
    std::fprintf(stderr, "wrong result: out[%zu] is %g, expected %g\n", i, out[i], expected);
    return kWrongResult;
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  for (const Case& c : kCases) {
    if (count == 2 && std::string_view(arguments[1]) == c.name) return run(c);
  }
  std::fprintf(stderr, "usage: faults NAME\n");
  return 2;
}
