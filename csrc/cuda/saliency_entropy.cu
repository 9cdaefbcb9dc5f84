// Entropy of the tasks' shares, position by position, in one pass over memory.
//
// A thread owns the columns of one 128-bit access. The gradients of the first two or four tasks stay in its registers,
// all loads in flight together, while their magnitudes are added; later tasks are read a second time, from the cache.
// Blocks leave their sums as a row of partials [blocks, 2]; saliency_mean_kernel adds the rows in a fixed order. No
// atomics: the same bits for every run.
//
// Numerics: a position in float32 (float64 for float64), sums over positions in float64. A task's share is a quotient,
// so that no scale of the gradients does harm; where the sum of the magnitudes is near overflow it is taken again on a
// smaller scale.
#include <cmath>

#include "cuda/multi_tensor.cuh"
#include "cuda/reduce.cuh"
#include "cuda/saliency_entropy.h"

namespace mtl {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
// Several times what a GPU holds at once, so that the last blocks to finish cost little.
constexpr int kMaxBlocks = 1024;

// Tasks whose gradients a thread keeps: with more, float64 spills on some architecture.
template <class T>
constexpr int kHeld = sizeof(T) == 8 ? 2 : 4;

template <class T>
constexpr int kPositions = kThreads * kVector<T>;

// Sums above this are near overflow.
template <class W>
constexpr W kLarge = sizeof(W) == 8 ? W(0x1p1000) : W(0x1p120f);

template <class W>
__device__ __forceinline__ W magnitude(W value) {
  return value < 0 ? -value : value;
}

// The columns of one thread.
template <class T>
struct Shares {
  Wide<T> sum[kVector<T>] = {};
  Wide<T> scale[kVector<T>];
  Wide<T> entropy[kVector<T>] = {};

  __device__ __forceinline__ void measure(const uint4& vector) {
    Wide<T> values[kVector<T>];
    unpack<T>(vector, values);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) sum[v] += magnitude(values[v]);
  }

  __device__ __forceinline__ void add(const uint4& vector) {
    Wide<T> values[kVector<T>];
    unpack<T>(vector, values);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) {
      const Wide<T> share = scale[v] * magnitude(values[v]) / (sum[v] == 0 ? Wide<T>(1) : sum[v]);
      entropy[v] -= share == 0 ? Wide<T>(0) : share * std::log(share);
    }
  }
};

// The entropies of a thread's columns; `columns` of them exist.
template <class T>
__device__ __forceinline__ void measure_columns(const TensorTable& table, const Chunk& chunk, int num_tasks,
                                                int64_t begin, int columns, Shares<T>& shares) {
  const auto load_task = [&](int k) {
    const T* row = table.row<const T>(chunk.param, k);
    return row == nullptr ? uint4{} : load_vector(row + begin, columns, chunk.vectorised);
  };
  uint4 held[kHeld<T>];
#pragma unroll
  for (int k = 0; k < kHeld<T>; ++k) held[k] = k < num_tasks ? load_task(k) : uint4{};
#pragma unroll
  for (int k = 0; k < kHeld<T>; ++k) shares.measure(held[k]);
#pragma unroll 1
  for (int k = kHeld<T>; k < num_tasks; ++k) shares.measure(load_task(k));
#pragma unroll
  for (int v = 0; v < kVector<T>; ++v) {
    shares.scale[v] = 1;
    if (!(shares.sum[v] > kLarge<Wide<T>>)) continue;
    shares.scale[v] = static_cast<Wide<T>>(0x1p-64);
    shares.sum[v] = 0;
#pragma unroll 1
    for (int k = 0; k < num_tasks; ++k) {
      const T* row = table.row<const T>(chunk.param, k);
      if (row != nullptr) shares.sum[v] += shares.scale[v] * magnitude(widen(row[begin + v]));
    }
  }
#pragma unroll
  for (int k = 0; k < kHeld<T>; ++k) {
    if (k < num_tasks) shares.add(held[k]);
  }
#pragma unroll 1
  for (int k = kHeld<T>; k < num_tasks; ++k) shares.add(load_task(k));
}

// Grid: blocks of kThreads that take chunks_per_block chunks of kPositions columns each. partials [blocks, 2]: sum of
// the entropies and number of all-zero positions. Shared memory: two doubles per warp.
template <class T>
__global__ void __launch_bounds__(kThreads)
    saliency_sum_kernel(MTL_GRID_CONSTANT(TensorTable) table, int num_tasks, int chunks_per_block, double* partials) {
  MTL_DYN_SHARED(raw);
  double* shared = reinterpret_cast<double*>(raw);
  const int first = static_cast<int>(threadIdx.x) * kVector<T>;
  double entropy = 0;
  double zeros = 0;
#pragma unroll 1
  for (ChunkWalk walk(table, blockIdx.x * chunks_per_block, chunks_per_block); !walk.done(); walk.advance()) {
    const Chunk chunk = walk.current();
    const int columns = chunk.columns - first;
    if (columns <= 0) continue;
    Shares<T> shares;
    measure_columns<T>(table, chunk, num_tasks, chunk.begin + first, columns, shares);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) {
      if (v >= columns) continue;
      entropy += shares.entropy[v];
      zeros += shares.sum[v] == 0 ? 1 : 0;
    }
  }
  entropy = block_sum(entropy, shared);
  zeros = block_sum(zeros, shared + kWarps);
  if (threadIdx.x == 0) {
    partials[2 * blockIdx.x] = entropy;
    partials[2 * blockIdx.x + 1] = zeros;
  }
}

// One block of kThreads. Shared memory: two doubles per warp.
__global__ void __launch_bounds__(kThreads)
    saliency_mean_kernel(const double* partials, int num_partials, int64_t positions, double* entropy,
                         int64_t* zero_columns) {
  MTL_DYN_SHARED(raw);
  double* shared = reinterpret_cast<double*>(raw);
  double sum = 0;
  double zeros = 0;
#pragma unroll 1
  for (int b = threadIdx.x; b < num_partials; b += kThreads) {
    sum += partials[2 * b];
    zeros += partials[2 * b + 1];
  }
  sum = block_sum(sum, shared);
  zeros = block_sum(zeros, shared + kWarps);
  if (threadIdx.x == 0) {
    *entropy = sum / static_cast<double>(positions);
    *zero_columns = static_cast<int64_t>(zeros);
  }
}

// Grid: one block of kThreads per chunk of kPositions columns. The map is the row behind the tasks.
template <class T>
__global__ void __launch_bounds__(kThreads) saliency_map_kernel(MTL_GRID_CONSTANT(TensorTable) table, int num_tasks) {
  const int index = blockIdx.x;
  const Chunk chunk(table, index, table.find(index));
  const int first = static_cast<int>(threadIdx.x) * kVector<T>;
  const int columns = chunk.columns - first;
  if (columns <= 0) return;
  Shares<T> shares;
  measure_columns<T>(table, chunk, num_tasks, chunk.begin + first, columns, shares);
  Wide<T>* map = table.row<Wide<T>>(chunk.param, num_tasks) + chunk.begin + first;
#pragma unroll
  for (int v = 0; v < kVector<T>; ++v) {
    if (v < columns) map[v] = shares.entropy[v];
  }
}

int chunks_per_block(const TensorTable& table) { return (table.num_chunks + kMaxBlocks - 1) / kMaxBlocks; }

int block_count(const TensorTable& table) {
  return (table.num_chunks + chunks_per_block(table) - 1) / chunks_per_block(table);
}

// Calls visit(table, an element of its type) for every launch.
template <class Visit>
void for_each_launch(const TensorLists& lists, Visit visit) {
  const auto of_type = [&](auto zero) {
    for_each_table<decltype(zero)>(lists, kPositions<decltype(zero)>,
                                   [&](const TensorTable& table) { visit(table, zero); });
  };
  of_type(double{});
  of_type(float{});
  of_type(bfloat16{});
  of_type(float16{});
}

}  // namespace

static_assert(kMaxEntropyTasks + 1 <= kMaxRows);

int64_t saliency_entropy_scratch(const TensorLists& grads) {
  int64_t blocks = 0;
  for_each_launch(grads, [&](const TensorTable& table, auto) { blocks += block_count(table); });
  return 2 * blocks;
}

cudaError_t launch_saliency_entropy(const TensorLists& grads, int64_t positions, double* scratch, double* entropy,
                                    int64_t* zero_columns, cudaStream_t stream) {
  constexpr int kSharedBytes = 2 * kWarps * static_cast<int>(sizeof(double));
  int blocks = 0;
  for_each_launch(grads, [&](const TensorTable& table, auto zero) {
    MTL_LAUNCH(saliency_sum_kernel<decltype(zero)>, block_count(table), kThreads, kSharedBytes, stream)
    (table, table.num_rows, chunks_per_block(table), scratch + int64_t{2} * blocks);
    blocks += block_count(table);
  });
  MTL_LAUNCH(saliency_mean_kernel, 1, kThreads, kSharedBytes, stream)
  (scratch, blocks, positions, entropy, zero_columns);
  return cudaGetLastError();
}

cudaError_t launch_saliency_entropy_map(const TensorLists& lists, cudaStream_t stream) {
  for_each_launch(lists, [&](const TensorTable& table, auto zero) {
    MTL_LAUNCH(saliency_map_kernel<decltype(zero)>, table.num_chunks, kThreads, 0, stream)(table, table.num_rows - 1);
  });
  return cudaGetLastError();
}

}  // namespace mtl
