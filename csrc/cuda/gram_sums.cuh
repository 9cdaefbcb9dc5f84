// What the two kernels of the Gram matrix share: the order of pairs and the sums of one thread.
#pragma once

#include <type_traits>

#include "cuda/multi_tensor.cuh"

namespace mtl {

// Columns whose products a thread adds in float32 before it moves on to float64.
constexpr int kRunColumns = 64;

MTL_HOST_DEVICE constexpr int pair_count(int num_tasks) { return num_tasks * (num_tasks + 1) / 2; }

// The place of tasks i <= j among the pairs; it does not depend on the number of tasks.
MTL_HOST_DEVICE constexpr int pair_index(int i, int j) { return pair_count(j) + i; }

// A block's row of partials: its own number, moved by the tag that its parameters share. (Looked up when the row is
// written, so that no register holds it during the sums.)
__device__ __forceinline__ double* block_partials(const TensorTable& table, int chunks_per_block, double* partials) {
  const int param = table.find(blockIdx.x * chunks_per_block);
  return partials + (blockIdx.x + table.tag(param)) * pair_count(table.num_rows);
}

// A thread's sums of kCount pairs of tasks: `run` takes the products of a few chunks and is then added to `moved`.
// Float64 sums need no such care and stay in `run`.
template <class W, int kCount>
struct PairSums {
  static constexpr bool kMoves = !std::is_same_v<W, double>;
  W run[kCount] = {};
  double moved[kCount] = {};
  int chunks = 0;

  __device__ __forceinline__ void end_chunk(int chunks_per_run) {
    if (kMoves && ++chunks == chunks_per_run) {
#pragma unroll
      for (int p = 0; p < kCount; ++p) {
        moved[p] += run[p];
        run[p] = 0;
      }
      chunks = 0;
    }
  }

  __device__ __forceinline__ double total(int p) const { return kMoves ? moved[p] + run[p] : run[p]; }
};

}  // namespace mtl
