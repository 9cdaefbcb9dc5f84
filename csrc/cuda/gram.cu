// Gram matrix of K task-major lists of gradients.
//
// Every block takes a range of chunks of columns, keeps the sums of all K (K + 1) / 2 pairs of tasks and writes them
// once, as its row of partials [blocks, K (K + 1) / 2] (float64); gram_finish_kernel adds the rows in a fixed order and
// writes both triangles. No atomics: the same bits for every run.
//
// K <= 8: gram_registers_kernel. K <= 64: gram_staged_kernel. Both read every element once. Larger K: the tasks are cut
// into groups of 32 and every two groups are multiplied like 64 tasks, so an element is read ceil(K / 32) - 1 times.
//
// Numerics: products, and their sums over at most 80 columns, in float32 (float64 input: in float64); the rest in
// float64.
#include <algorithm>

#include "cuda/gram.h"
#include "cuda/gram_registers.cuh"
#include "cuda/gram_staged.cuh"

namespace mtl {
namespace {

constexpr int kGroupTasks = kStagedTasks / 2;
constexpr int kFinishThreads = 128;
// Several times what a GPU holds at once, so that the last blocks to finish cost little.
constexpr int kMaxBlocks = 1024;

// The tasks of one pass over the gradients: first .. first + split - 1, then second .. second + count - split - 1.
struct Pass {
  int count;
  int split;
  int first;
  int second;

  MTL_HOST_DEVICE int task(int row) const { return row < split ? first + row : second + row - split; }
};

// Grid: [count, count] blocks of kFinishThreads; block (i, j >= i) sums one pair of the pass over all rows of partials.
// Shared memory: a double per warp.
__global__ void __launch_bounds__(kFinishThreads)
    gram_finish_kernel(const double* partials, int num_partials, Pass pass, int num_tasks, double* gram) {
  MTL_DYN_SHARED(raw);
  const int i = blockIdx.x;
  const int j = blockIdx.y;
  if (i > j) return;
  const int64_t pairs = pair_count(pass.count);
  double sum = 0;
#pragma unroll 4
  for (int b = threadIdx.x; b < num_partials; b += kFinishThreads) sum += partials[b * pairs + pair_index(i, j)];
  sum = block_sum(sum, reinterpret_cast<double*>(raw));
  if (threadIdx.x == 0) {
    const int64_t row = pass.task(i);
    const int64_t column = pass.task(j);
    gram[row * num_tasks + column] = sum;
    gram[column * num_tasks + row] = sum;
  }
}

// Chunks for each block: enough to keep the grid below kMaxBlocks, and the partials below an eighth of what is read (a
// chunk has about 16 KB).
int chunks_per_block(const TensorTable& table) {
  const int for_grid = (table.num_chunks + kMaxBlocks - 1) / kMaxBlocks;
  const int for_partials = 1 + pair_count(table.num_rows) / 256;
  return std::max(for_grid, for_partials);
}

int block_count(const TensorTable& table) {
  const int chunks = chunks_per_block(table);
  return (table.num_chunks + chunks - 1) / chunks;
}

template <class T, int kTasks>
void launch_registers(const TensorTable& table, double* partials, cudaStream_t stream) {
  const int shared_bytes = pair_count(kTasks) * kRegisterWarps * static_cast<int>(sizeof(double));
  MTL_LAUNCH((gram_registers_kernel<T, kTasks>), block_count(table), kRegisterThreads, shared_bytes, stream)
  (table, chunks_per_block(table), partials);
}

// The kernel for num_tasks tasks of type T: the columns of its chunks, and its launch.
template <class T>
struct PartialKernel {
  int chunk_columns;
  void (*launch)(const TensorTable& table, double* partials, cudaStream_t stream);
};

template <class T, int kTasks>
constexpr PartialKernel<T> kRegisterKernel = {kRegisterThreads * kThreadColumns<T, kTasks>,
                                              launch_registers<T, kTasks>};

template <class T>
void launch_staged(const TensorTable& table, double* partials, cudaStream_t stream) {
  const Staging staging = Staging::plan<T>(table.num_rows);
  MTL_LAUNCH(gram_staged_kernel<T>, block_count(table), staging.threads, staging.shared_bytes, stream)
  (table, staging, chunks_per_block(table), partials);
}

template <class T>
PartialKernel<T> partial_kernel(int num_tasks) {
  if (num_tasks <= 2) return kRegisterKernel<T, 2>;
  if (num_tasks <= 4) return kRegisterKernel<T, 4>;
  if (num_tasks <= kRegisterTasks) return kRegisterKernel<T, kRegisterTasks>;
  return {Staging::plan<T>(num_tasks).row_vectors * kVector<T>, launch_staged<T>};
}

// Calls visit(table, launch) for every launch of a pass.
template <class Visit>
void for_each_launch(const TensorLists& lists, Visit visit) {
  const auto of_type = [&](auto zero) {
    using T = decltype(zero);
    const PartialKernel<T> kernel = partial_kernel<T>(lists.num_rows);
    for_each_table<T>(lists, kernel.chunk_columns, [&](const TensorTable& table) { visit(table, kernel.launch); });
  };
  of_type(double{});
  of_type(float{});
  of_type(bfloat16{});
  of_type(float16{});
}

// Calls visit(pass, the lists of its tasks) for every pass.
template <class Visit>
void for_each_pass(const TensorLists& grads, Visit visit) {
  const int num_tasks = grads.num_rows;
  if (num_tasks <= kStagedTasks) return visit(Pass{num_tasks, num_tasks, 0, 0}, grads);
  TensorLists lists = grads;
  for (int first = 0; first < num_tasks; first += kGroupTasks) {
    for (int second = first + kGroupTasks; second < num_tasks; second += kGroupTasks) {
      const Pass pass{kGroupTasks + std::min(kGroupTasks, num_tasks - second), kGroupTasks, first, second};
      lists.num_rows = pass.count;
      lists.data.clear();
      for (int row = 0; row < pass.count; ++row) {
        const auto begin = grads.data.begin() + pass.task(row) * grads.num_params;
        lists.data.insert(lists.data.end(), begin, begin + grads.num_params);
      }
      visit(pass, lists);
    }
  }
}

}  // namespace

int64_t gram_scratch(const TensorLists& grads) {
  int64_t most = 0;
  for_each_pass(grads, [&](const Pass& pass, const TensorLists& lists) {
    int64_t blocks = 0;
    for_each_launch(lists, [&](const TensorTable& table, auto) { blocks += block_count(table); });
    most = std::max(most, blocks * pair_count(pass.count));
  });
  return most;
}

cudaError_t launch_gram(const TensorLists& grads, double* scratch, double* gram, cudaStream_t stream) {
  for_each_pass(grads, [&](const Pass& pass, const TensorLists& lists) {
    int blocks = 0;
    for_each_launch(lists, [&](const TensorTable& table, auto launch) {
      launch(table, scratch + int64_t{blocks} * pair_count(pass.count), stream);
      blocks += block_count(table);
    });
    const int shared_bytes = kFinishThreads / kWarpSize * static_cast<int>(sizeof(double));
    MTL_LAUNCH(gram_finish_kernel, dim3(pass.count, pass.count), kFinishThreads, shared_bytes, stream)
    (scratch, blocks, pass, grads.num_rows, gram);
  });
  return cudaGetLastError();
}

}  // namespace mtl
