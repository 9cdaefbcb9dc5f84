// GradDrop: purity, mask and masked sum of K task-major lists of gradients in one pass over memory.
//
// A thread owns the columns of one 128-bit access. The gradients of the first kHeld tasks stay in its registers, all
// loads in flight together, while the sums decide the columns; later tasks are read a second time, from the cache. The
// draw comes from a stateless Philox, so no memory is spent on it. An output may be the very memory of a gradient,
// because a thread reads all its columns before it writes them.
//
// Numerics: sums in task order in float32 (float64 for float64), one rounding at the end; the mask is the same bits as
// on the CPU (common/graddrop.h).
#include "common/philox.h"
#include "cuda/graddrop.h"
#include "cuda/multi_tensor.cuh"

namespace mtl {
namespace {

constexpr int kThreads = 256;

// Tasks whose gradients a thread keeps.
constexpr int kHeld = 8;

template <class T>
constexpr int kBlockColumns = kThreads * kVector<T>;

// The uniform numbers of elements index .. index + kVector of a tensor; index is a multiple of kVector.
template <class T>
__device__ __forceinline__ void draw(const PhiloxStream& stream, int64_t tensor, int64_t index, float* uniform) {
  if constexpr (kVector<T> < 4) {
    const PhiloxWords words = stream.words(index / 4, tensor);
    const bool upper = index % 4 != 0;
    uniform[0] = uniform_from(upper ? words.word[2] : words.word[0]);
    uniform[1] = uniform_from(upper ? words.word[3] : words.word[1]);
  } else {
#pragma unroll
    for (int v = 0; v < kVector<T>; v += 4) {
      const PhiloxWords words = stream.words((index + v) / 4, tensor);
#pragma unroll
      for (int w = 0; w < 4; ++w) uniform[v + w] = uniform_from(words.word[w]);
    }
  }
}

template <class T>
struct Column {
  Wide<T> sum[kVector<T>] = {};
  Wide<T> magnitude[kVector<T>] = {};
  Wide<T> sign[kVector<T>];
  Wide<T> total[kVector<T>] = {};

  __device__ __forceinline__ void measure(const uint4& vector) {
    Wide<T> values[kVector<T>];
    unpack<T>(vector, values);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) {
      sum[v] += values[v];
      magnitude[v] += values[v] < 0 ? -values[v] : values[v];
    }
  }

  __device__ __forceinline__ void decide(const float* uniform, const DropRule& rule) {
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) {
      sign[v] = passing_sign(sum[v], magnitude[v], uniform[v], rule.sigmoid, static_cast<Wide<T>>(rule.kappa));
    }
  }

  __device__ __forceinline__ void pass(const uint4& vector, Wide<T> leak) {
    Wide<T> values[kVector<T>];
    unpack<T>(vector, values);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) total[v] += (values[v] * sign[v] > 0 ? Wide<T>(1) : leak) * values[v];
  }

  __device__ __forceinline__ void add(const uint4& vector) {
    Wide<T> values[kVector<T>];
    unpack<T>(vector, values);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) total[v] += values[v];
  }
};

// Grid: one block of kThreads per chunk of kBlockColumns columns.
template <class T>
__global__ void __launch_bounds__(kThreads)
    graddrop_kernel(MTL_GRID_CONSTANT(TensorTable) table, int num_tasks, DropRule rule) {
  const int index = blockIdx.x;
  const Chunk chunk(table, index, table.find(index));
  const int first = static_cast<int>(threadIdx.x) * kVector<T>;
  const int columns = chunk.columns - first;
  if (columns <= 0) return;
  const int64_t begin = chunk.begin + first;
  const auto load_task = [&](int k) {
    const T* row = table.row<const T>(chunk.param, k);
    return row == nullptr ? uint4{} : load_vector(row + begin, columns, chunk.vectorised);
  };
  const auto leak_of = [&](int k) { return rule.leak == nullptr ? Wide<T>(0) : static_cast<Wide<T>>(rule.leak[k]); };

  uint4 held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) held[k] = k < num_tasks ? load_task(k) : uint4{};
  float uniform[kVector<T>];
  if (rule.seed != nullptr) {
    draw<T>(PhiloxStream(rule.seed), table.tag(chunk.param), begin, uniform);
  } else {
    const float* row = table.row<const float>(chunk.param, num_tasks + 1) + begin;
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) uniform[v] = v < columns ? row[v] : 0.0f;
  }

  Column<T> column;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (k < num_tasks) column.measure(held[k]);
  }
#pragma unroll 1
  for (int k = kHeld; k < num_tasks; ++k) column.measure(load_task(k));
  column.decide(uniform, rule);
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (k < num_tasks) column.pass(held[k], leak_of(k));
  }
#pragma unroll 1
  for (int k = kHeld; k < num_tasks; ++k) column.pass(load_task(k), leak_of(k));
  T* out = table.row<T>(chunk.param, num_tasks) + begin;
  if (rule.accumulate) column.add(load_vector<T>(out, columns, chunk.vectorised));
  store_vector(out, pack<T>(column.total), columns, chunk.vectorised);
}

template <class T>
void launch_type(const TensorLists& lists, int num_tasks, const DropRule& rule, cudaStream_t stream) {
  for_each_table<T>(lists, kBlockColumns<T>, [&](const TensorTable& table) {
    MTL_LAUNCH(graddrop_kernel<T>, table.num_chunks, kThreads, 0, stream)(table, num_tasks, rule);
  });
}

}  // namespace

static_assert(kMaxGradDropTasks + 2 <= kMaxRows);

cudaError_t launch_graddrop(const TensorLists& lists, int num_tasks, const DropRule& rule, cudaStream_t stream) {
  launch_type<double>(lists, num_tasks, rule, stream);
  launch_type<float>(lists, num_tasks, rule, stream);
  launch_type<bfloat16>(lists, num_tasks, rule, stream);
  launch_type<float16>(lists, num_tasks, rule, stream);
  return cudaGetLastError();
}

}  // namespace mtl
