// The central difference of two lists of gradients, one pass.
//
// One block per chunk of columns; a thread reads all its columns of both lists before it writes them, so that the
// output may be the very memory of either. eps is read on the device: the host never waits for it. Arithmetic is
// float64, rounded once.
#include "common/perturb.h"
#include "cuda/finite_difference.h"
#include "cuda/thread_columns.cuh"

namespace mtl {
namespace {

template <class T, bool kVectorised>
__device__ __forceinline__ void load_present(const T* row, const Chunk& chunk, Wide<T>* values) {
  if (row != nullptr) {
    load_columns<T, kVectorised>(row + chunk.begin, chunk.columns, values);
  } else {
#pragma unroll
    for (int n = 0; n < kThreadColumns<T>; ++n) values[n] = 0;
  }
}

template <class T, bool kVectorised>
__device__ __forceinline__ void subtract_chunk(const TensorTable& table, const Chunk& chunk, double factor,
                                               bool accumulate) {
  Wide<T> up[kThreadColumns<T>], down[kThreadColumns<T>], start[kThreadColumns<T>];
  load_present<T, kVectorised>(factor == 0 ? nullptr : table.row<const T>(chunk.param, 0), chunk, up);
  load_present<T, kVectorised>(factor == 0 ? nullptr : table.row<const T>(chunk.param, 1), chunk, down);
  T* out = table.row<T>(chunk.param, 2) + chunk.begin;
  load_present<T, kVectorised>(accumulate ? table.row<const T>(chunk.param, 2) : nullptr, chunk, start);
#pragma unroll
  for (int n = 0; n < kThreadColumns<T>; ++n) {
    const double difference = static_cast<double>(up[n]) - down[n];
    start[n] = static_cast<Wide<T>>(start[n] + factor * difference);
  }
  store_columns<T, kVectorised>(out, chunk.columns, start);
}

// Grid: one block of kColumnThreads per chunk of kBlockColumns columns.
template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    finite_difference_kernel(MTL_GRID_CONSTANT(TensorTable) table, const double* eps, bool accumulate) {
  const int index = blockIdx.x;
  const Chunk chunk(table, index, table.find(index));
  const double factor = difference_factor(*eps);
  if (chunk.vectorised) {
    subtract_chunk<T, true>(table, chunk, factor, accumulate);
  } else {
    subtract_chunk<T, false>(table, chunk, factor, accumulate);
  }
}

template <class T>
void launch_type(const TensorLists& lists, const double* eps, bool accumulate, cudaStream_t stream) {
  for_each_table<T>(lists, kBlockColumns<T>, [&](const TensorTable& table) {
    MTL_LAUNCH(finite_difference_kernel<T>, table.num_chunks, kColumnThreads, 0, stream)(table, eps, accumulate);
  });
}

}  // namespace

cudaError_t launch_finite_difference(const TensorLists& lists, const double* eps, bool accumulate,
                                     cudaStream_t stream) {
  launch_type<double>(lists, eps, accumulate, stream);
  launch_type<float>(lists, eps, accumulate, stream);
  launch_type<bfloat16>(lists, eps, accumulate, stream);
  launch_type<float16>(lists, eps, accumulate, stream);
  return cudaGetLastError();
}

}  // namespace mtl
