// Gram matrices of K rows read once: blocks of columns small enough for the first-level cache, each block multiplied in
// register tiles of 4 x 3 row pairs. Sums run in T over at most kRunColumns columns, then in double; every chunk of
// kChunkColumns columns leaves its own partial sums, which are added to its group's in chunk order: the bits do not
// depend on threads.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <vector>

#include "cpu/columns.h"
#include "cpu/vector.h"
#include "task_grads.h"

namespace mtl {
namespace {

constexpr int64_t kRunColumns = 4096;

// Elements of a cache line.
template <class T>
constexpr int64_t kLine = 64 / sizeof(T);

// Rows i..i+m against rows j..j+n; i == j: the triangle of m rows with themselves. `first` is its first accumulator.
struct Tile {
  int i, m, j, n, first;
};

// Triangles of at most 4 rows, tiles of 4 x 3 with a remainder of 4 x 2: a lone row or column would load two vectors
// for every product, so 4 + 1 rows are split 3 + 2.
std::vector<Tile> plan_tiles(int num_tasks) {
  std::vector<Tile> tiles;
  int accumulators = 0;
  for (int i = 0; i < num_tasks;) {
    const int left = num_tasks - i;
    const int m = left == 5 ? 3 : std::min(left, 4);
    tiles.push_back({i, m, i, m, accumulators});
    accumulators += m * (m + 1) / 2;
    for (int j = 0; j < i;) {
      const int n = (i - j) % 3 == 0 ? 3 : 2;
      tiles.push_back({i, m, j, n, accumulators});
      accumulators += m * n;
      j += n;
    }
    i += m;
  }
  return tiles;
}

// `next` is the row to ask for; the only tile asks for all of its own.
template <class T, int M>
MTL_INLINE void triangle(const T* const* rows, int64_t columns, T* sums, const T* next, bool alone) {
  Vector<T> sum[M * (M + 1) / 2];
#pragma GCC unroll 16
  for (int p = 0; p < M * (M + 1) / 2; ++p) sum[p] = load(sums + p * kLanes<T>);
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    Vector<T> x[M];
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) x[i] = load(rows[i] + c);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j <= i; ++j) sum[i * (i + 1) / 2 + j] += x[i] * x[j];
    }
    if (next != nullptr && c % kLine<T> == 0) {
      __builtin_prefetch(next + c, 0, 2);
#pragma GCC unroll 4
      for (int i = 1; i < M; ++i) {
        if (alone) __builtin_prefetch(rows[i] + columns + c, 0, 2);
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < M * (M + 1) / 2; ++p) store(sums + p * kLanes<T>, sum[p]);
}

template <class T, int M, int N>
MTL_INLINE void rectangle(const T* const* a, const T* const* b, int64_t columns, T* sums, const T* next) {
  Vector<T> sum[M * N];
#pragma GCC unroll 16
  for (int p = 0; p < M * N; ++p) sum[p] = load(sums + p * kLanes<T>);
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    Vector<T> y[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) y[j] = load(b[j] + c);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const Vector<T> x = load(a[i] + c);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) sum[i * N + j] += x * y[j];
    }
    if (next != nullptr && c % kLine<T> == 0) __builtin_prefetch(next + c, 0, 2);
  }
#pragma GCC unroll 16
  for (int p = 0; p < M * N; ++p) store(sums + p * kLanes<T>, sum[p]);
}

template <class T>
MTL_INLINE void multiply_tile(const Tile& tile, const T* const* rows, int64_t columns, T* sums, const T* next,
                              bool alone) {
  const T* const* a = rows + tile.i;
  const T* const* b = rows + tile.j;
  switch (tile.i == tile.j ? tile.m : 10 * tile.m + tile.n) {
    case 1:
      return triangle<T, 1>(a, columns, sums, next, alone);
    case 2:
      return triangle<T, 2>(a, columns, sums, next, alone);
    case 3:
      return triangle<T, 3>(a, columns, sums, next, alone);
    case 4:
      return triangle<T, 4>(a, columns, sums, next, alone);
    case 22:
      return rectangle<T, 2, 2>(a, b, columns, sums, next);
    case 23:
      return rectangle<T, 2, 3>(a, b, columns, sums, next);
    case 32:
      return rectangle<T, 3, 2>(a, b, columns, sums, next);
    case 33:
      return rectangle<T, 3, 3>(a, b, columns, sums, next);
    case 42:
      return rectangle<T, 4, 2>(a, b, columns, sums, next);
    case 43:
      return rectangle<T, 4, 3>(a, b, columns, sums, next);
  }
}

// One block of columns. What follows it in memory (`next`: the rows go on there) is fetched into the second-level cache
// meanwhile, a row by each tile: the hardware alone loses time where K streams change places.
template <class T>
MTL_INLINE void multiply_block(const std::vector<Tile>& tiles, const T* const* rows, int num_tasks, int64_t columns,
                               bool next, T* sums) {
  int fetched = next ? 0 : num_tasks;
  for (const Tile& tile : tiles) {
    const T* ahead = fetched < num_tasks ? rows[fetched++] + columns : nullptr;
    multiply_tile<T>(tile, rows, columns, sums + tile.first * kLanes<T>, ahead, tiles.size() == 1);
  }
}

// Adds the sums of one run to the chunk's totals, 4 double lanes for every row pair, and clears them.
MTL_INLINE void flush(float* sums, double* totals, int64_t count) {
  for (int64_t p = 0; p < count; ++p) {
    for (int lane = 0; lane < 4; ++lane) totals[4 * p + lane] += double(sums[8 * p + lane]) + sums[8 * p + lane + 4];
    store(sums + 8 * p, Vector<float>{});
  }
}

MTL_INLINE void flush(double* sums, double* totals, int64_t count) {
  for (int64_t p = 0; p < count; ++p) {
    store(totals + 4 * p, load(totals + 4 * p) + load(sums + 4 * p));
    store(sums + 4 * p, Vector<double>{});
  }
}

MTL_CLONES void block_float(const std::vector<Tile>& tiles, const float* const* rows, int num_tasks, int64_t columns,
                            bool next, float* sums) {
  multiply_block<float>(tiles, rows, num_tasks, columns, next, sums);
}
MTL_CLONES void block_double(const std::vector<Tile>& tiles, const double* const* rows, int num_tasks, int64_t columns,
                             bool next, double* sums) {
  multiply_block<double>(tiles, rows, num_tasks, columns, next, sums);
}
MTL_CLONES void flush_float(float* sums, double* totals, int64_t count) { flush(sums, totals, count); }
MTL_CLONES void flush_double(double* sums, double* totals, int64_t count) { flush(sums, totals, count); }

// Partial sums of every chunk, added in chunk order into total[groups, accumulators].
template <class T, class Block, class Flush>
void add_columns(const TaskGrads& grads, const std::vector<int64_t>& groups, const std::vector<Tile>& tiles,
                 Block multiply, Flush flush_run, std::vector<double>& total) {
  const int num_tasks = static_cast<int>(grads.num_tasks);
  const int64_t count = num_tasks * (num_tasks + 1) / 2;
  const Columns<T> columns(grads, groups);
  std::vector<double> partial(columns.num_chunks() * count);
  // K rows of a block, and the next block's on their way, share the caches with the sums of all pairs.
  const int64_t block = (num_tasks > 4 && num_tasks <= 8) || num_tasks > 24 ? 128 : 256;
  torch::stable::parallel_for(0, columns.num_chunks(), 1, [&](int64_t begin, int64_t end) {
    typename Columns<T>::Scratch scratch(num_tasks, block);
    const AlignedBuffer<T> sums(count * kLanes<T>);
    const AlignedBuffer<double> totals(count * 4);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      std::fill_n(totals.get(), count * 4, 0.0);
      int64_t run = 0;
      columns.walk(chunk, scratch, [&](const T* const* rows, int64_t length, bool in_place) {
        if (run + length > kRunColumns) {
          flush_run(sums.get(), totals.get(), count);
          run = 0;
        }
        multiply(tiles, rows, num_tasks, length, in_place, sums.get());
        run += length;
      });
      flush_run(sums.get(), totals.get(), count);
      for (int64_t p = 0; p < count; ++p) {
        const double* lanes = totals.get() + 4 * p;
        partial[chunk * count + p] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
      }
    }
  });
  for (int64_t chunk = 0; chunk < columns.num_chunks(); ++chunk) {
    double* sums = total.data() + columns.group(chunk) * count;
    for (int64_t p = 0; p < count; ++p) sums[p] += partial[chunk * count + p];
  }
}

// The matrix [K, K] of one group's sums.
void write_matrix(const std::vector<Tile>& tiles, const double* sums, int64_t num_tasks, double* gram) {
  for (const Tile& tile : tiles) {
    int p = tile.first;
    for (int i = tile.i; i < tile.i + tile.m; ++i) {
      for (int j = tile.j; j < (tile.i == tile.j ? i + 1 : tile.j + tile.n); ++j, ++p) {
        gram[i * num_tasks + j] = gram[j * num_tasks + i] = sums[p];
      }
    }
  }
}

Tensor gram_cpu(std::vector<Tensor> list, int64_t num_tasks, std::optional<std::vector<int64_t>> groups) {
  const char* op = "mtl_ext::gram";
  const TaskGrads grads = check_task_grads(op, std::move(list), num_tasks);
  const int64_t num_groups = groups ? check_groups(op, *groups, grads.num_params) : 1;
  const std::vector<int64_t> group_of = groups.value_or(std::vector<int64_t>(grads.num_params, 0));
  const std::vector<Tile> tiles = plan_tiles(static_cast<int>(num_tasks));
  const int64_t pairs = num_tasks * (num_tasks + 1) / 2;
  std::vector<double> total(num_groups * pairs);
  add_columns<float>(grads, group_of, tiles, block_float, flush_float, total);
  add_columns<double>(grads, group_of, tiles, block_double, flush_double, total);
  Tensor result = new_gram(grads, groups ? num_groups : 0);
  double* gram = result.mutable_data_ptr<double>();
  for (int64_t group = 0; group < num_groups; ++group) {
    write_matrix(tiles, total.data() + group * pairs, num_tasks, gram + group * num_tasks * num_tasks);
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("gram", TORCH_BOX(&gram_cpu)); }

}  // namespace mtl
