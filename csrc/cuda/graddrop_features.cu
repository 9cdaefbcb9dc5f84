// GradDrop of K task-major lists of feature gradients [B, positions].
//
// A block owns one 128-bit access of positions per lane of a warp, and its eight warps share the batch: warp s has
// the samples of slice s. Sums over the batch go to shared memory, four tasks in one sweep over the features; they
// decide the factor of every task at every position; a second sweep over the gradients, which finds them in the cache
// unless the batch is large, writes the masked sums.
//
// Numerics: sums in the order of common/graddrop.h, in float32 (float64 for float64), one rounding at the end; the mask
// is the same bits as on the CPU.
#include <algorithm>

#include "common/philox.h"
#include "cuda/graddrop_features.h"
#include "cuda/multi_tensor.cuh"
#include "cuda/reduce.cuh"

namespace mtl {
namespace {

constexpr int kThreads = kWarpSize * kBatchSlices;

// Tasks of one sweep.
constexpr int kSwept = 4;

template <class T>
constexpr int kBlockColumns = kWarpSize * kVector<T>;

// The positions of one block, as one thread sees them.
template <class T>
struct Positions {
  int64_t begin;  // of the thread's vector
  int64_t numel;  // of a sample
  int64_t batch;
  int columns;  // of the thread's vector that exist
  bool vectorised;

  __device__ Positions(const TensorTable& table, const Chunk& chunk, int64_t samples) {
    const int first = static_cast<int>(threadIdx.x) % kWarpSize * kVector<T>;
    begin = chunk.begin + first;
    numel = table.numel(chunk.param);
    batch = samples;
    columns = chunk.columns - first;
    vectorised = chunk.vectorised && numel % kVector<T> == 0;
  }
  __device__ __forceinline__ uint4 load(const T* row, int64_t sample) const {
    return row == nullptr || columns <= 0 ? uint4{} : load_vector(row + sample * numel + begin, columns, vectorised);
  }
};

// slices [kSwept][kBatchSlices][kBlockColumns]: the slice sums of tasks first .. first + kSwept - 1.
template <class T>
__device__ __forceinline__ void sum_slices(const TensorTable& table, const Positions<T>& at, int param, int num_tasks,
                                           int first, Wide<T>* slices) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int slice = static_cast<int>(threadIdx.x) / kWarpSize;
  const T* feature = table.row<const T>(param, num_tasks);
  const T* rows[kSwept];
#pragma unroll
  for (int n = 0; n < kSwept; ++n) rows[n] = first + n < num_tasks ? table.row<const T>(param, first + n) : nullptr;
  Wide<T> sums[kSwept][kVector<T>] = {};
#pragma unroll 2
  for (int64_t b = slice; b < at.batch; b += kBatchSlices) {
    const uint4 loaded = at.load(feature, b);
    uint4 grads[kSwept];
#pragma unroll
    for (int n = 0; n < kSwept; ++n) grads[n] = at.load(rows[n], b);
    Wide<T> z[kVector<T>];
    unpack<T>(loaded, z);
#pragma unroll
    for (int n = 0; n < kSwept; ++n) {
      Wide<T> values[kVector<T>];
      unpack<T>(grads[n], values);
#pragma unroll
      for (int v = 0; v < kVector<T>; ++v) sums[n][v] += sign_of(z[v]) * values[v];
    }
  }
#pragma unroll
  for (int n = 0; n < kSwept; ++n) {
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) {
      slices[(n * kBatchSlices + slice) * kBlockColumns<T> + lane * kVector<T> + v] = sums[n][v];
    }
  }
}

// marginals [K][kBlockColumns]: adds the slices of each swept task in order.
template <class T>
__device__ __forceinline__ void add_slices(const Wide<T>* slices, int num_tasks, int first, Wide<T>* marginals) {
  const int swept = num_tasks - first < kSwept ? num_tasks - first : kSwept;
  for (int index = threadIdx.x; index < swept * kBlockColumns<T>; index += kThreads) {
    const int n = index / kBlockColumns<T>;
    const int column = index % kBlockColumns<T>;
    Wide<T> sum = 0;
#pragma unroll
    for (int slice = 0; slice < kBatchSlices; ++slice) {
      sum += slices[(n * kBatchSlices + slice) * kBlockColumns<T> + column];
    }
    marginals[(first + n) * kBlockColumns<T> + column] = sum;
  }
}

// Replaces the marginal gradients of one position by the tasks' factors: 1 where the task passes, else its leak.
template <class T>
__device__ __forceinline__ void decide(Wide<T>* marginals, int num_tasks, float uniform, const DropRule& rule) {
  using W = Wide<T>;
  W sum = 0, magnitude = 0;
  for (int k = 0; k < num_tasks; ++k) {
    const W value = marginals[k * kBlockColumns<T>];
    sum += value;
    magnitude += value < 0 ? -value : value;
  }
  const W sign = passing_sign(sum, magnitude, uniform, rule.sigmoid, static_cast<W>(rule.kappa));
  for (int k = 0; k < num_tasks; ++k) {
    W& marginal = marginals[k * kBlockColumns<T>];
    const W leak = rule.leak == nullptr ? W(0) : static_cast<W>(rule.leak[k]);
    marginal = marginal * sign > 0 ? W(1) : leak;
  }
}

// The samples of one slice.
template <class T>
__device__ __forceinline__ void write_samples(const TensorTable& table, const Positions<T>& at, int param,
                                              int num_tasks, const Wide<T>* factors) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  T* out = table.row<T>(param, num_tasks + 1);
#pragma unroll 1
  for (int64_t b = threadIdx.x / kWarpSize; b < at.batch; b += kBatchSlices) {
    Wide<T> total[kVector<T>] = {};
#pragma unroll 4
    for (int k = 0; k < num_tasks; ++k) {
      Wide<T> values[kVector<T>];
      unpack<T>(at.load(table.row<const T>(param, k), b), values);
      const Wide<T>* factor = factors + k * kBlockColumns<T> + lane * kVector<T>;
#pragma unroll
      for (int v = 0; v < kVector<T>; ++v) total[v] += factor[v] * values[v];
    }
    if (at.columns > 0) store_vector(out + b * at.numel + at.begin, pack<T>(total), at.columns, at.vectorised);
  }
}

// Grid: one block of kThreads per chunk of kBlockColumns positions. A parameter's tag is batch * 2^32 + its index in
// the list. Shared memory: Wide [K + kSwept * kBatchSlices][kBlockColumns].
template <class T>
__global__ void __launch_bounds__(kThreads)
    graddrop_features_kernel(MTL_GRID_CONSTANT(TensorTable) table, int num_tasks, DropRule rule) {
  MTL_DYN_SHARED(raw);
  Wide<T>* marginals = reinterpret_cast<Wide<T>*>(raw);
  Wide<T>* slices = marginals + num_tasks * kBlockColumns<T>;
  const int block = blockIdx.x;
  const Chunk chunk(table, block, table.find(block));
  const int64_t tag = table.tag(chunk.param);
  const Positions<T> at(table, chunk, tag >> 32);
#pragma unroll 1
  for (int first = 0; first < num_tasks; first += kSwept) {
    sum_slices<T>(table, at, chunk.param, num_tasks, first, slices);
    __syncthreads();  // the slices are summed
    add_slices<T>(slices, num_tasks, first, marginals);
    __syncthreads();  // nobody reads them any more
  }
  for (int column = threadIdx.x; column < chunk.columns; column += kThreads) {
    const int64_t position = chunk.begin + column;
    float uniform;
    if (rule.seed != nullptr) {
      const PhiloxWords words = PhiloxStream(rule.seed).words(position / 4, tag & 0xffffffff);
      const int word = position % 4;
      uniform = uniform_from(word < 2 ? (word == 0 ? words.word[0] : words.word[1])
                                      : (word == 2 ? words.word[2] : words.word[3]));
    } else {
      uniform = table.row<const float>(chunk.param, num_tasks + 2)[position];
    }
    decide<T>(marginals + column, num_tasks, uniform, rule);
  }
  __syncthreads();  // the factors are there
  write_samples<T>(table, at, chunk.param, num_tasks, marginals);
}

template <class T>
cudaError_t launch_type(const TensorLists& lists, const std::vector<int64_t>& batch, int num_tasks,
                        const DropRule& rule, cudaStream_t stream) {
  const int shared_bytes = (num_tasks + kSwept * kBatchSlices) * kBlockColumns<T> * static_cast<int>(sizeof(Wide<T>));
  const cudaError_t error = allow_shared_memory(graddrop_features_kernel<T>, shared_bytes);
  if (error != cudaSuccess) return error;
  for_each_table<T>(lists, kBlockColumns<T>, [&](TensorTable& table) {
    for (int param = 0; param < table.num_params; ++param) {
      const int64_t index = table.tag(param);
      table.renumber(param, table.first_chunk(param), batch[index] << 32 | index);
    }
    MTL_LAUNCH(graddrop_features_kernel<T>, table.num_chunks, kThreads, shared_bytes, stream)(table, num_tasks, rule);
  });
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_graddrop_features(const TensorLists& lists, const std::vector<int64_t>& batch, int num_tasks,
                                     const DropRule& rule, cudaStream_t stream) {
  cudaError_t error = launch_type<double>(lists, batch, num_tasks, rule, stream);
  if (error == cudaSuccess) error = launch_type<float>(lists, batch, num_tasks, rule, stream);
  if (error == cudaSuccess) error = launch_type<bfloat16>(lists, batch, num_tasks, rule, stream);
  if (error == cudaSuccess) error = launch_type<float16>(lists, batch, num_tasks, rule, stream);
  return error;
}

}  // namespace mtl
