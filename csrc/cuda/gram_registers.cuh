// Partial Gram sums of at most eight tasks: every thread keeps the sums of all pairs in registers, columns go from
// memory straight to them.
#pragma once

#include "cuda/gram_sums.cuh"
#include "cuda/reduce.cuh"

namespace mtl {

constexpr int kRegisterTasks = 8;
constexpr int kRegisterThreads = 128;
constexpr int kRegisterWarps = kRegisterThreads / kWarpSize;

// Eight 128-bit loads are in flight for each thread, spread over the tasks.
template <int kTasks>
constexpr int kTaskVectors = 8 / kTasks;

template <class T, int kTasks>
constexpr int kThreadColumns = kTaskVectors<kTasks> * kVector<T>;

// Blocks on a multiprocessor: few enough that the compiler gets the registers to issue all those loads before the first
// product (left alone it aims at more blocks and two loads at a time).
constexpr int resident_blocks(int num_tasks) { return num_tasks <= 2 ? 8 : num_tasks <= 4 ? 4 : 3; }

// sums[pair(i, j)] += x[i] x[j]
template <class W, int kTasks>
__device__ __forceinline__ void add_products(const W* x, W* sums) {
#pragma unroll
  for (int j = 0; j < kTasks; ++j) {
#pragma unroll
    for (int i = 0; i <= j; ++i) sums[pair_index(i, j)] += x[i] * x[j];
  }
}

// A whole chunk of aligned rows.
template <class T, int kTasks>
__device__ __forceinline__ void add_vectors(const T* const* rows, int64_t begin, Wide<T>* sums) {
  uint4 loaded[kTaskVectors<kTasks>][kTasks];
#pragma unroll
  for (int u = 0; u < kTaskVectors<kTasks>; ++u) {
    const int64_t column = begin + (u * kRegisterThreads + static_cast<int>(threadIdx.x)) * kVector<T>;
#pragma unroll
    for (int k = 0; k < kTasks; ++k) {
      loaded[u][k] = rows[k] ? *reinterpret_cast<const uint4*>(rows[k] + column) : uint4{};
    }
  }
#pragma unroll
  for (int u = 0; u < kTaskVectors<kTasks>; ++u) {
    Wide<T> values[kTasks][kVector<T>];
#pragma unroll
    for (int k = 0; k < kTasks; ++k) unpack<T>(loaded[u][k], values[k]);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) {
      Wide<T> x[kTasks];
#pragma unroll
      for (int k = 0; k < kTasks; ++k) x[k] = values[k][v];
      add_products<Wide<T>, kTasks>(x, sums);
    }
  }
}

// A parameter's last chunk, or a chunk of misaligned rows.
template <class T, int kTasks>
__device__ __forceinline__ void add_elements(const T* const* rows, const Chunk& chunk, Wide<T>* sums) {
#pragma unroll 1
  for (int column = threadIdx.x; column < chunk.columns; column += kRegisterThreads) {
    Wide<T> x[kTasks];
#pragma unroll
    for (int k = 0; k < kTasks; ++k) x[k] = rows[k] ? widen(rows[k][chunk.begin + column]) : Wide<T>(0);
    add_products<Wide<T>, kTasks>(x, sums);
  }
}

// Adds the threads' sums in a fixed order and writes the first `pairs` of them.
template <class W, int kPairs>
__device__ __forceinline__ void write_block_sums(const PairSums<W, kPairs>& sums, double* shared, int pairs,
                                                 double* partials) {
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const double sum = warp_sum(sums.total(p));
    if (threadIdx.x % kWarpSize == 0) shared[p * kRegisterWarps + threadIdx.x / kWarpSize] = sum;
  }
  __syncthreads();
  for (int p = threadIdx.x; p < pairs; p += kRegisterThreads) {
    double total = 0;
    for (int warp = 0; warp < kRegisterWarps; ++warp) total += shared[p * kRegisterWarps + warp];
    partials[p] = total;
  }
}

// partials [rows, K (K + 1) / 2]. Grid: blocks of kRegisterThreads, each taking chunks_per_block chunks of
// kRegisterThreads * kThreadColumns columns. Shared memory: double [kPairs][kRegisterWarps]. Tasks K .. kTasks - 1
// count as absent.
template <class T, int kTasks>
__global__ void __launch_bounds__(kRegisterThreads, resident_blocks(kTasks))
    gram_registers_kernel(MTL_GRID_CONSTANT(TensorTable) table, int chunks_per_block, double* partials) {
  MTL_DYN_SHARED(raw);
  PairSums<Wide<T>, pair_count(kTasks)> sums;
#pragma unroll 1
  for (ChunkWalk walk(table, blockIdx.x * chunks_per_block, chunks_per_block); !walk.done(); walk.advance()) {
    const Chunk chunk = walk.current();
    const T* rows[kTasks];
#pragma unroll
    for (int k = 0; k < kTasks; ++k) rows[k] = k < table.num_rows ? table.row<const T>(chunk.param, k) : nullptr;
    if (chunk.vectorised) {
      add_vectors<T, kTasks>(rows, chunk.begin, sums.run);
    } else {
      add_elements<T, kTasks>(rows, chunk, sums.run);
    }
    sums.end_chunk(kRunColumns / kThreadColumns<T, kTasks>);
  }
  write_block_sums(sums, reinterpret_cast<double*>(raw), pair_count(table.num_rows),
                   block_partials(table, chunks_per_block, partials));
}

}  // namespace mtl
