// Parameters moved to both sides along a direction.
//
// perturb_norm_kernel leaves the squares of the norms, one pair per block, perturb_eps_kernel adds them in a fixed
// order and writes eps, perturb_kernel reads it there: the host never waits. A thread reads all its columns before it
// writes them, so that an output may be the very memory of the direction. No atomics: the same bits for every run.
//
// Numerics: float64 throughout, one rounding at the end.
#include "common/perturb.h"
#include "cuda/perturb.h"
#include "cuda/reduce.cuh"
#include "cuda/thread_columns.cuh"

namespace mtl {
namespace {

constexpr int kWarps = kColumnThreads / kWarpSize;
// Several times what a GPU holds at once, so that the last blocks to finish cost little.
constexpr int kMaxBlocks = 1024;

template <class T>
__device__ __forceinline__ double chunk_square(const T* row, const Chunk& chunk) {
  if (row == nullptr) return 0;
  Wide<T> values[kThreadColumns<T>];
  if (chunk.vectorised) {
    load_columns<T, true>(row + chunk.begin, chunk.columns, values);
  } else {
    load_columns<T, false>(row + chunk.begin, chunk.columns, values);
  }
  double sum = 0;
#pragma unroll
  for (int n = 0; n < kThreadColumns<T>; ++n) sum += static_cast<double>(values[n]) * values[n];
  return sum;
}

// partials [blocks, 2]: squares of parameters (0 unless `relative`) and of the direction. Grid: blocks of
// kColumnThreads that take chunks_per_block chunks of kBlockColumns columns each. Shared memory: two doubles per warp.
template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    perturb_norm_kernel(MTL_GRID_CONSTANT(TensorTable) table, int chunks_per_block, bool relative, double* partials) {
  MTL_DYN_SHARED(raw);
  double* shared = reinterpret_cast<double*>(raw);
  double params = 0;
  double direction = 0;
#pragma unroll 1
  for (ChunkWalk walk(table, blockIdx.x * chunks_per_block, chunks_per_block); !walk.done(); walk.advance()) {
    const Chunk chunk = walk.current();
    if (relative) params += chunk_square(table.row<const T>(chunk.param, 0), chunk);
    direction += chunk_square(table.row<const T>(chunk.param, 1), chunk);
  }
  params = block_sum(params, shared);
  direction = block_sum(direction, shared + kWarps);
  if (threadIdx.x == 0) {
    partials[2 * blockIdx.x] = params;
    partials[2 * blockIdx.x + 1] = direction;
  }
}

// One block of kColumnThreads. Shared memory: two doubles per warp.
__global__ void __launch_bounds__(kColumnThreads)
    perturb_eps_kernel(const double* partials, int num_partials, double radius, bool relative, double* eps) {
  MTL_DYN_SHARED(raw);
  double* shared = reinterpret_cast<double*>(raw);
  double params = 0;
  double direction = 0;
#pragma unroll 1
  for (int b = threadIdx.x; b < num_partials; b += kColumnThreads) {
    params += partials[2 * b];
    direction += partials[2 * b + 1];
  }
  params = block_sum(params, shared);
  direction = block_sum(direction, shared + kWarps);
  if (threadIdx.x == 0) *eps = step_size(radius, relative, params, direction);
}

template <class T, bool kVectorised>
__device__ __forceinline__ void move_chunk(const TensorTable& table, const Chunk& chunk, double eps) {
  Wide<T> from[kThreadColumns<T>], along[kThreadColumns<T>];
  const T* direction = table.row<const T>(chunk.param, 1);
  load_columns<T, kVectorised>(table.row<const T>(chunk.param, 0) + chunk.begin, chunk.columns, from);
  if (direction != nullptr) load_columns<T, kVectorised>(direction + chunk.begin, chunk.columns, along);
#pragma unroll
  for (int n = 0; n < kThreadColumns<T>; ++n) {
    const double step = direction != nullptr ? eps * along[n] : 0;
    along[n] = static_cast<Wide<T>>(from[n] - step);
    from[n] = static_cast<Wide<T>>(from[n] + step);
  }
  store_columns<T, kVectorised>(table.row<T>(chunk.param, 2) + chunk.begin, chunk.columns, from);
  store_columns<T, kVectorised>(table.row<T>(chunk.param, 3) + chunk.begin, chunk.columns, along);
}

// Grid: one block of kColumnThreads per chunk of kBlockColumns columns.
template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    perturb_kernel(MTL_GRID_CONSTANT(TensorTable) table, const double* eps) {
  const int index = blockIdx.x;
  const Chunk chunk(table, index, table.find(index));
  if (chunk.vectorised) {
    move_chunk<T, true>(table, chunk, *eps);
  } else {
    move_chunk<T, false>(table, chunk, *eps);
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
    for_each_table<decltype(zero)>(lists, kBlockColumns<decltype(zero)>,
                                   [&](const TensorTable& table) { visit(table, zero); });
  };
  of_type(double{});
  of_type(float{});
  of_type(bfloat16{});
  of_type(float16{});
}

}  // namespace

int64_t perturb_scratch(const TensorLists& lists) {
  int64_t blocks = 0;
  for_each_launch(lists, [&](const TensorTable& table, auto) { blocks += block_count(table); });
  return 2 * blocks;
}

cudaError_t launch_perturb(const TensorLists& lists, double radius, bool relative, double* scratch, double* eps,
                           cudaStream_t stream) {
  constexpr int kSharedBytes = 2 * kWarps * static_cast<int>(sizeof(double));
  int blocks = 0;
  for_each_launch(lists, [&](const TensorTable& table, auto zero) {
    MTL_LAUNCH(perturb_norm_kernel<decltype(zero)>, block_count(table), kColumnThreads, kSharedBytes, stream)
    (table, chunks_per_block(table), relative, scratch + int64_t{2} * blocks);
    blocks += block_count(table);
  });
  MTL_LAUNCH(perturb_eps_kernel, 1, kColumnThreads, kSharedBytes, stream)(scratch, blocks, radius, relative, eps);
  for_each_launch(lists, [&](const TensorTable& table, auto zero) {
    MTL_LAUNCH(perturb_kernel<decltype(zero)>, table.num_chunks, kColumnThreads, 0, stream)(table, eps);
  });
  return cudaGetLastError();
}

}  // namespace mtl
