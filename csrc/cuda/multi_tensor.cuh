// Walking many tensors in one launch. A launch gets a table of addresses by value, as a kernel argument: nothing is
// copied to the device, so a CUDA graph can capture it. Lists that do not fit, and each dtype, get launches of their
// own.
//
// The columns (elements) of every parameter are cut into chunks; chunks are numbered across the table's parameters and
// dealt to the blocks. Between two parameters numbers may be left free: such a chunk has no columns. A chunk is read by
// 128-bit loads if it is whole and all its rows are aligned to 16 bytes, and element by element otherwise, a choice
// that the whole block makes together.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/dtypes.h"
#include "cuda/launch.cuh"
#include "cuda/tensor_lists.h"

namespace mtl {

// Elements of one 128-bit access.
template <class T>
constexpr int kVector = 16 / sizeof(T);

template <class T>
constexpr Dtype kDtype = std::is_same_v<T, double>     ? Dtype::kFloat64
                         : std::is_same_v<T, float>    ? Dtype::kFloat32
                         : std::is_same_v<T, bfloat16> ? Dtype::kBFloat16
                                                       : Dtype::kFloat16;

// Kernel arguments hold 32,764 bytes.
constexpr int kTableWords = 3950;

// The parameters of one launch. Each takes num_rows + 3 words: an address per row (0: absent), the number of columns,
// a tag (its index in the list, unless the operator puts another number there), and twice the number of its first
// chunk, plus one where all addresses are aligned to 16 bytes.
struct TensorTable {
  int num_rows;
  int num_params;
  int num_chunks;
  int chunk_columns;
  int64_t words[kTableWords];

  MTL_HOST_DEVICE int64_t word(int param, int index) const { return words[param * (num_rows + 3) + index]; }
  MTL_HOST_DEVICE int64_t numel(int param) const { return word(param, num_rows); }
  MTL_HOST_DEVICE int64_t tag(int param) const { return word(param, num_rows + 1); }
  MTL_HOST_DEVICE int first_chunk(int param) const { return static_cast<int>(word(param, num_rows + 2) >> 1); }
  MTL_HOST_DEVICE bool aligned(int param) const { return word(param, num_rows + 2) & 1; }

  template <class T>
  MTL_HOST_DEVICE T* row(int param, int index) const {
    return reinterpret_cast<T*>(word(param, index));
  }

  // Gives a parameter's chunks other numbers, from `first` on, and the parameter another tag; returns the number after
  // its last chunk.
  int renumber(int param, int first, int64_t tag) {
    int64_t* entry = words + param * (num_rows + 3);
    entry[num_rows + 1] = tag;
    entry[num_rows + 2] = 2 * int64_t{first} + (aligned(param) ? 1 : 0);
    return first + static_cast<int>((numel(param) + chunk_columns - 1) / chunk_columns);
  }

  // The parameter that a chunk belongs to.
  MTL_HOST_DEVICE int find(int chunk) const {
    int low = 0;
    for (int high = num_params; high - low > 1;) {
      const int middle = (low + high) / 2;
      (first_chunk(middle) <= chunk ? low : high) = middle;
    }
    return low;
  }
};
static_assert(sizeof(TensorTable) <= 31 * 1024 + 512, "leaves room for the other kernel arguments");

// The largest number of rows that one parameter may have.
constexpr int kMaxRows = kTableWords - 3;

// One chunk: columns begin .. begin + columns of a parameter; columns <= 0: none.
struct Chunk {
  int param;
  int64_t begin;
  int columns;
  bool vectorised;

  MTL_HOST_DEVICE Chunk(const TensorTable& table, int chunk, int param_of_chunk) : param(param_of_chunk) {
    begin = static_cast<int64_t>(chunk - table.first_chunk(param)) * table.chunk_columns;
    const int64_t left = table.numel(param) - begin;
    columns = left < table.chunk_columns ? static_cast<int>(left) : table.chunk_columns;
    vectorised = columns == table.chunk_columns && table.aligned(param);
  }
};

// The chunks of one block, in turn: first .. last of the table, which may span parameters.
struct ChunkWalk {
  const TensorTable& table;
  int chunk;
  int last;
  int param;

  MTL_HOST_DEVICE ChunkWalk(const TensorTable& chunks, int first, int count) : table(chunks), chunk(first) {
    last = first + count < table.num_chunks ? first + count : table.num_chunks;
    param = table.find(first);
  }
  MTL_HOST_DEVICE bool done() const { return chunk >= last; }
  MTL_HOST_DEVICE Chunk current() const { return Chunk(table, chunk, param); }
  // Every parameter of the table has a chunk, so the next chunk belongs to the same parameter or to the next one.
  MTL_HOST_DEVICE void advance() {
    ++chunk;
    if (param + 1 < table.num_params && table.first_chunk(param + 1) == chunk) ++param;
  }
};

template <class T>
MTL_HOST_DEVICE void unpack(const uint4& vector, Wide<T>* values) {
  T elements[kVector<T>];
  memcpy(elements, &vector, sizeof vector);
#pragma unroll
  for (int v = 0; v < kVector<T>; ++v) values[v] = widen(elements[v]);
}

template <class T>
MTL_HOST_DEVICE uint4 pack(const Wide<T>* values) {
  T elements[kVector<T>];
#pragma unroll
  for (int v = 0; v < kVector<T>; ++v) elements[v] = narrow<T>(values[v]);
  uint4 vector;
  memcpy(&vector, elements, sizeof vector);
  return vector;
}

// A thread's columns of one tensor: `row` points to the first of them, `columns` counts those that exist.
template <class T>
__device__ __forceinline__ uint4 load_vector(const T* row, int columns, bool vectorised) {
  if (vectorised) return *reinterpret_cast<const uint4*>(row);
  T elements[kVector<T>] = {};
#pragma unroll
  for (int v = 0; v < kVector<T>; ++v) {
    if (v < columns) elements[v] = row[v];
  }
  uint4 vector;
  memcpy(&vector, elements, sizeof vector);
  return vector;
}

template <class T>
__device__ __forceinline__ void store_vector(T* row, const uint4& vector, int columns, bool vectorised) {
  if (vectorised) {
    *reinterpret_cast<uint4*>(row) = vector;
    return;
  }
  T elements[kVector<T>];
  memcpy(elements, &vector, sizeof vector);
#pragma unroll
  for (int v = 0; v < kVector<T>; ++v) {
    if (v < columns) row[v] = elements[v];
  }
}

// Calls launch(table) for the parameters of type T, as many at a time as a table holds.
template <class T, class Launch>
void for_each_table(const TensorLists& lists, int chunk_columns, Launch launch) {
  TensorTable table;
  table.num_rows = lists.num_rows;
  table.chunk_columns = chunk_columns;
  table.num_params = table.num_chunks = 0;
  const int words = lists.num_rows + 3;
  for (int64_t param = 0; param < lists.num_params; ++param) {
    if (lists.numel[param] == 0 || lists.dtype[param] != kDtype<T>) continue;
    if ((table.num_params + 1) * words > kTableWords) {
      launch(table);
      table.num_params = table.num_chunks = 0;
    }
    int64_t* entry = table.words + table.num_params++ * words;
    int64_t address_bits = 0;
    for (int row = 0; row < lists.num_rows; ++row) {
      entry[row] = reinterpret_cast<int64_t>(lists.data[row * lists.num_params + param]);
      address_bits |= entry[row];
    }
    entry[words - 3] = lists.numel[param];
    entry[words - 1] = address_bits % 16 == 0 ? 1 : 0;
    table.num_chunks = table.renumber(table.num_params - 1, table.num_chunks, param);
  }
  if (table.num_params > 0) launch(table);
}

}  // namespace mtl
