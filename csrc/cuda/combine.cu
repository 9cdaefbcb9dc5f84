// Weighted sum of K task-major lists of gradients into existing tensors.
//
// One block per chunk of columns; a thread keeps the sums of its columns in registers while it goes through the tasks,
// all loads of one task in flight together. The weights are read on the device: the host never waits for a solver.
// A gradient of weight 0 is not read. An output may be the very memory of a gradient, because a thread reads all its
// columns before it writes them.
//
// Numerics: sums in task order in float32 (float64 for float64), then the output if it accumulates, one rounding.
#include "cuda/combine.h"
#include "cuda/thread_columns.cuh"

namespace mtl {
namespace {

constexpr int kThreads = kColumnThreads;

template <class T>
constexpr int kColumns = kThreadColumns<T>;

template <class T, bool kVectorised>
__device__ __forceinline__ void combine_chunk(const TensorTable& table, const Chunk& chunk, const double* weights,
                                              bool accumulate) {
  const int num_tasks = table.num_rows - 1;
  Wide<T> sums[kColumns<T>] = {};
  Wide<T> values[kColumns<T>];
#pragma unroll 1
  for (int k = 0; k < num_tasks; ++k) {
    const T* row = table.row<const T>(chunk.param, k);
    const double weight = weights[k];
    if (row == nullptr || weight == 0) continue;
    load_columns<T, kVectorised>(row + chunk.begin, chunk.columns, values);
#pragma unroll
    for (int n = 0; n < kColumns<T>; ++n) sums[n] += static_cast<Wide<T>>(weight) * values[n];
  }
  T* out = table.row<T>(chunk.param, num_tasks) + chunk.begin;
  if (accumulate) {
    load_columns<T, kVectorised>(out, chunk.columns, values);
#pragma unroll
    for (int n = 0; n < kColumns<T>; ++n) sums[n] += values[n];
  }
  store_columns<T, kVectorised>(out, chunk.columns, sums);
}

// Grid: one block of kThreads per chunk of kBlockColumns columns.
template <class T>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(MTL_GRID_CONSTANT(TensorTable) table, TaskWeights weights, bool accumulate) {
  const int index = blockIdx.x;
  const Chunk chunk(table, index, table.find(index));
  const double* row = weights.data + table.tag(chunk.param) * weights.stride;
  if (chunk.vectorised) {
    combine_chunk<T, true>(table, chunk, row, accumulate);
  } else {
    combine_chunk<T, false>(table, chunk, row, accumulate);
  }
}

template <class T>
void launch_type(const TensorLists& lists, const TaskWeights& weights, bool accumulate, cudaStream_t stream) {
  for_each_table<T>(lists, kBlockColumns<T>, [&](const TensorTable& table) {
    MTL_LAUNCH(combine_kernel<T>, table.num_chunks, kThreads, 0, stream)(table, weights, accumulate);
  });
}

}  // namespace

static_assert(kMaxCombineTasks + 1 <= kMaxRows);

cudaError_t launch_combine(const TensorLists& lists, const TaskWeights& weights, bool accumulate, cudaStream_t stream) {
  launch_type<double>(lists, weights, accumulate, stream);
  launch_type<float>(lists, weights, accumulate, stream);
  launch_type<bfloat16>(lists, weights, accumulate, stream);
  launch_type<float16>(lists, weights, accumulate, stream);
  return cudaGetLastError();
}

}  // namespace mtl
