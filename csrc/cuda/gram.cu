// Gram matrices of K task-major lists of gradients, one for each group of parameters.
//
// Every block takes a range of chunks of columns of one group, keeps the sums of all K (K + 1) / 2 pairs of tasks and
// writes them once, as its row of partials [rows, K (K + 1) / 2] (float64). The rows of a group follow each other, over
// all launches; gram_finish_kernel adds them in a fixed order and writes both triangles. No atomics: the same bits for
// every run.
//
// K <= 8: gram_registers_kernel. K <= 64: gram_staged_kernel. Both read every element once. Larger K: the tasks are cut
// into groups of 32 and every two groups are multiplied like 64 tasks, so an element is read ceil(K / 32) - 1 times.
//
// Numerics: products, and their sums over at most 80 columns, in float32 (float64 input: in float64); the rest in
// float64.
#include <algorithm>
#include <numeric>

#include "cuda/gram.h"
#include "cuda/gram_registers.cuh"
#include "cuda/gram_staged.cuh"

namespace mtl {
namespace {

constexpr int kGroupTasks = kStagedTasks / 2;
constexpr int kFinishThreads = 128;
// Groups that one finishing launch takes: a table of 16 KB.
constexpr int kFinishGroups = 4095;
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

// Groups first .. first + kCapacity - 1, or fewer: group first + i has the rows of partials start[i] .. start[i + 1].
template <int kCapacity>
struct GroupRows {
  int first;
  int start[kCapacity + 1];
};

// Grid: [count, count, groups] blocks of kFinishThreads; block (i, j >= i, group) sums one pair of the pass over the
// group's rows of partials. Shared memory: a double per warp.
template <int kCapacity>
__global__ void __launch_bounds__(kFinishThreads)
    gram_finish_kernel(const double* partials, MTL_GRID_CONSTANT(GroupRows<kCapacity>) rows, Pass pass, int num_tasks,
                       double* gram) {
  MTL_DYN_SHARED(raw);
  const int i = blockIdx.x;
  const int j = blockIdx.y;
  if (i > j) return;
  const int64_t pairs = pair_count(pass.count);
  const int end = rows.start[blockIdx.z + 1];
  double sum = 0;
#pragma unroll 4
  for (int b = rows.start[blockIdx.z] + static_cast<int>(threadIdx.x); b < end; b += kFinishThreads) {
    sum += partials[b * pairs + pair_index(i, j)];
  }
  sum = block_sum(sum, reinterpret_cast<double*>(raw));
  if (threadIdx.x == 0) {
    const int64_t matrix = static_cast<int64_t>(rows.first + blockIdx.z) * num_tasks;
    const int row = pass.task(i);
    const int column = pass.task(j);
    gram[(matrix + row) * num_tasks + column] = sum;
    gram[(matrix + column) * num_tasks + row] = sum;
  }
}

template <int kCapacity>
void launch_finish(const std::vector<int>& start, const Pass& pass, int num_tasks, const double* partials, double* gram,
                   cudaStream_t stream) {
  const int num_groups = static_cast<int>(start.size()) - 1;
  const int shared_bytes = kFinishThreads / kWarpSize * static_cast<int>(sizeof(double));
  for (int first = 0; first < num_groups; first += kCapacity) {
    const int count = std::min(kCapacity, num_groups - first);
    GroupRows<kCapacity> rows;
    rows.first = first;
    std::copy_n(start.begin() + first, count + 1, rows.start);
    MTL_LAUNCH(gram_finish_kernel<kCapacity>, dim3(pass.count, pass.count, count), kFinishThreads, shared_bytes, stream)
    (partials, rows, pass, num_tasks, gram);
  }
}

// Chunks for each block: enough to keep the grid below kMaxBlocks, and the partials below an eighth of what is read (a
// chunk has about 16 KB).
int chunks_per_block(const TensorTable& table) {
  const int for_grid = (table.num_chunks + kMaxBlocks - 1) / kMaxBlocks;
  const int for_partials = 1 + pair_count(table.num_rows) / 256;
  return std::max(for_grid, for_partials);
}

// Renumbers the chunks so that every run of parameters of one group begins with a block of its own, and tags each
// parameter with the distance from its blocks' numbers to their rows of partials. next_row: [G], the next free row of
// each group.
void assign_rows(TensorTable& table, const std::vector<int64_t>& group_of, int chunks_per_block,
                 std::vector<int>& next_row) {
  int block = 0;
  for (int param = 0; param < table.num_params;) {
    const int64_t group = group_of[table.tag(param)];
    const int distance = next_row[group] - block;
    int chunk = block * chunks_per_block;
    while (param < table.num_params && group_of[table.tag(param)] == group) {
      chunk = table.renumber(param++, chunk, distance);
    }
    block = (chunk + chunks_per_block - 1) / chunks_per_block;
    next_row[group] = block + distance;
  }
  table.num_chunks = block * chunks_per_block;
}

template <class T, int kTasks>
void launch_registers(const TensorTable& table, int chunks_per_block, double* partials, cudaStream_t stream) {
  const int shared_bytes = pair_count(kTasks) * kRegisterWarps * static_cast<int>(sizeof(double));
  MTL_LAUNCH((gram_registers_kernel<T, kTasks>), table.num_chunks / chunks_per_block, kRegisterThreads, shared_bytes,
             stream)
  (table, chunks_per_block, partials);
}

// The kernel for num_tasks tasks of type T: the columns of its chunks, and its launch.
template <class T>
struct PartialKernel {
  int chunk_columns;
  void (*launch)(const TensorTable& table, int chunks_per_block, double* partials, cudaStream_t stream);
};

template <class T, int kTasks>
constexpr PartialKernel<T> kRegisterKernel = {kRegisterThreads * kThreadColumns<T, kTasks>,
                                              launch_registers<T, kTasks>};

template <class T>
void launch_staged(const TensorTable& table, int chunks_per_block, double* partials, cudaStream_t stream) {
  const Staging staging = Staging::plan<T>(table.num_rows);
  MTL_LAUNCH(gram_staged_kernel<T>, table.num_chunks / chunks_per_block, staging.threads, staging.shared_bytes, stream)
  (table, staging, chunks_per_block, partials);
}

template <class T>
PartialKernel<T> partial_kernel(int num_tasks) {
  if (num_tasks <= 2) return kRegisterKernel<T, 2>;
  if (num_tasks <= 4) return kRegisterKernel<T, 4>;
  if (num_tasks <= kRegisterTasks) return kRegisterKernel<T, kRegisterTasks>;
  return {Staging::plan<T>(num_tasks).row_vectors * kVector<T>, launch_staged<T>};
}

// Calls visit(table, chunks per block, launch) for every launch of a pass. next_row: [G], as in assign_rows.
template <class Visit>
void for_each_launch(const TensorLists& lists, const Groups& groups, std::vector<int>& next_row, Visit visit) {
  const auto of_type = [&](auto zero) {
    using T = decltype(zero);
    const PartialKernel<T> kernel = partial_kernel<T>(lists.num_rows);
    for_each_table<T>(lists, kernel.chunk_columns, [&](TensorTable& table) {
      const int chunks = chunks_per_block(table);
      assign_rows(table, groups.of_param, chunks, next_row);
      visit(table, chunks, kernel.launch);
    });
  };
  of_type(double{});
  of_type(float{});
  of_type(bfloat16{});
  of_type(float16{});
}

// Where the rows of every group begin, and where the last ones end: [G + 1].
std::vector<int> row_starts(const TensorLists& lists, const Groups& groups) {
  std::vector<int> rows(groups.count), start(groups.count + 1);
  for_each_launch(lists, groups, rows, [](const TensorTable&, int, auto) {});
  std::partial_sum(rows.begin(), rows.end(), start.begin() + 1);
  return start;
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

int64_t gram_scratch(const TensorLists& grads, const Groups& groups) {
  int64_t most = 0;
  for_each_pass(grads, [&](const Pass& pass, const TensorLists& lists) {
    most = std::max(most, int64_t{row_starts(lists, groups).back()} * pair_count(pass.count));
  });
  return most;
}

cudaError_t launch_gram(const TensorLists& grads, const Groups& groups, double* scratch, double* gram,
                        cudaStream_t stream) {
  for_each_pass(grads, [&](const Pass& pass, const TensorLists& lists) {
    const std::vector<int> start = row_starts(lists, groups);
    std::vector<int> next_row = start;
    for_each_launch(lists, groups, next_row,
                    [&](const TensorTable& table, int chunks, auto launch) { launch(table, chunks, scratch, stream); });
    // A table of one group is a small kernel argument.
    const auto finish = groups.count == 1 ? launch_finish<1> : launch_finish<kFinishGroups>;
    finish(start, pass, grads.num_rows, scratch, gram, stream);
  });
  return cudaGetLastError();
}

}  // namespace mtl
