// The columns of a task-major list: the elements of all parameters laid end to end, K rows high, handed out in blocks
// of K pointers to aligned or unaligned runs of T (float for float32 and the half types, double for float64).
//
// Chunks are the units of parallel work: at most kChunkColumns columns of one group of parameters.
//
// Bodies of parameters are read where they lie when they have type T; half types are widened into a scratch that stays
// in the first-level cache; absent gradients point to zeros. Small parameters and the last few elements of large ones
// are packed side by side into the scratch, so that a list of tiny tensors costs no more arithmetic than one large
// tensor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include "common/dtypes.h"
#include "cpu/vector.h"
#include "task_grads.h"

namespace mtl {

// Parameters below this many elements are packed whole.
constexpr int64_t kPackBelow = 64;

template <class T>
class Columns {
 public:
  // groups: [P], the group of each parameter.
  Columns(const TaskGrads& grads, const std::vector<int64_t>& groups) : grads_(grads) {
    std::vector<int64_t> params(grads.num_params);
    std::iota(params.begin(), params.end(), 0);
    std::stable_sort(params.begin(), params.end(), [&](int64_t a, int64_t b) { return groups[a] < groups[b]; });
    for (auto param = params.begin(); param != params.end();) {
      const int64_t group = groups[*param];
      const int64_t bodies = length(bodies_);
      const int64_t packed = length(packed_);
      for (; param != params.end() && groups[*param] == group; ++param) append(*param);
      cut(bodies, length(bodies_), /*packed=*/false, group);
      cut(packed, length(packed_), /*packed=*/true, group);
    }
  }

  int64_t num_chunks() const { return static_cast<int64_t>(chunks_.size()); }
  int64_t group(int64_t chunk) const { return chunks_[chunk].group; }

  // Memory that one thread needs to walk chunks.
  struct Scratch {
    Scratch(int64_t num_tasks, int64_t block) : rows(num_tasks), values((num_tasks + 1) * block), block(block) {}
    std::vector<const T*> rows;
    AlignedBuffer<T> values;  // [K + 1, block], the last row zeros for absent gradients
    int64_t block;
    T* row(int64_t task) const { return values.get() + task * block; }
  };

  // Calls visit(rows, length, in_place) for the blocks of one chunk, in order; length is a multiple of the lanes
  // (padded by zeros).
  template <class Visit>
  void walk(int64_t index, Scratch& scratch, const Visit& visit) const {
    const Chunk& chunk = chunks_[index];
    if (chunk.packed) {
      walk_packed(chunk.begin, chunk.end, scratch, visit);
    } else {
      walk_bodies(chunk.begin, chunk.end, scratch, visit);
    }
  }

 private:
  // `length` columns from `begin` on are the elements of one parameter from `offset` on.
  struct Segment {
    int64_t param, offset, begin, length;
  };

  // Columns begin .. end of the bodies or of the packed elements.
  struct Chunk {
    int64_t group, begin, end;
    bool packed;
  };

  static int64_t length(const std::vector<Segment>& segments) {
    return segments.empty() ? 0 : segments.back().begin + segments.back().length;
  }

  void append(int64_t param) {
    const int64_t numel = grads_.numel[param];
    if (numel == 0 || (grads_.dtype[param] == ScalarType::Double) != std::is_same_v<T, double>) return;
    const int64_t body = numel < kPackBelow ? 0 : numel / kLanes<T> * kLanes<T>;
    if (body > 0) bodies_.push_back({param, 0, length(bodies_), body});
    if (numel > body) packed_.push_back({param, body, length(packed_), numel - body});
  }

  void cut(int64_t begin, int64_t end, bool packed, int64_t group) {
    for (; begin < end; begin += kChunkColumns) {
      chunks_.push_back({group, begin, std::min(begin + kChunkColumns, end), packed});
    }
  }

  static size_t find(const std::vector<Segment>& segments, int64_t column) {
    const auto after = std::upper_bound(segments.begin(), segments.end(), column,
                                        [](int64_t c, const Segment& segment) { return c < segment.begin; });
    return after - segments.begin() - 1;
  }

  template <class Visit>
  void walk_bodies(int64_t column, int64_t end, Scratch& scratch, const Visit& visit) const {
    for (size_t s = find(bodies_, column); column < end; ++s) {
      const Segment& segment = bodies_[s];
      const int64_t segment_end = std::min(end, segment.begin + segment.length);
      while (column < segment_end) {
        const int64_t length = std::min(scratch.block, segment_end - column);
        point_at(segment, column - segment.begin, length, scratch);
        visit(scratch.rows.data(), length, lies_in_place(segment));
        column += length;
      }
    }
  }

  // Whether the memory of a parameter holds T, so that its rows are read there and go on behind a block.
  bool lies_in_place(const Segment& segment) const {
    return grads_.dtype[segment.param] == ScalarType::Float || grads_.dtype[segment.param] == ScalarType::Double;
  }

  // Points the K rows at `length` elements of a body, widening where the memory does not hold T.
  void point_at(const Segment& segment, int64_t position, int64_t length, Scratch& scratch) const {
    const int64_t offset = segment.offset + position;
    const ScalarType dtype = grads_.dtype[segment.param];
    const bool in_place = lies_in_place(segment);
    for (int64_t k = 0; k < grads_.num_tasks; ++k) {
      const void* data = grads_.data(k, segment.param);
      if (data == nullptr) {
        scratch.rows[k] = scratch.row(grads_.num_tasks);
      } else if (in_place) {
        scratch.rows[k] = static_cast<const T*>(data) + offset;
      } else {
        copy(data, dtype, offset, length, scratch.row(k));
        scratch.rows[k] = scratch.row(k);
      }
    }
  }

  template <class Visit>
  void walk_packed(int64_t column, int64_t end, Scratch& scratch, const Visit& visit) const {
    for (int64_t k = 0; k < grads_.num_tasks; ++k) scratch.rows[k] = scratch.row(k);
    int64_t filled = 0;
    for (size_t s = find(packed_, column); column < end;) {
      const Segment& segment = packed_[s];
      const int64_t segment_end = std::min(end, segment.begin + segment.length);
      const int64_t length = std::min(scratch.block - filled, segment_end - column);
      for (int64_t k = 0; k < grads_.num_tasks; ++k) {
        copy(grads_.data(k, segment.param), grads_.dtype[segment.param], segment.offset + column - segment.begin,
             length, scratch.row(k) + filled);
      }
      filled += length;
      column += length;
      if (column == segment_end) ++s;
      if (filled < scratch.block && column < end) continue;
      const int64_t padded = (filled + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
      for (int64_t k = 0; k < grads_.num_tasks; ++k) std::fill(scratch.row(k) + filled, scratch.row(k) + padded, T(0));
      visit(scratch.rows.data(), padded, /*in_place=*/false);
      filled = 0;
    }
  }

  static void copy(const void* data, ScalarType dtype, int64_t offset, int64_t length, T* target);

  const TaskGrads& grads_;
  std::vector<Segment> bodies_;
  std::vector<Segment> packed_;
  std::vector<Chunk> chunks_;
};

// Both also ask for what follows, which is the next block's: the hardware alone does not keep up with K short runs.
template <class T>
MTL_INLINE void widen_run(const T* source, int64_t length, float* target) {
  for (int64_t i = 0; i < length; i += 64 / sizeof(T)) __builtin_prefetch(source + length + i, 0, 2);
  for (int64_t i = 0; i < length; ++i) target[i] = widen(source[i]);
}

MTL_CLONES inline void widen_bfloat16(const bfloat16* source, int64_t length, float* target) {
  widen_run(source, length, target);
}

MTL_CLONES inline void widen_float16(const float16* source, int64_t length, float* target) {
  widen_run(source, length, target);
}

template <>
inline void Columns<double>::copy(const void* data, ScalarType, int64_t offset, int64_t length, double* target) {
  if (data == nullptr) {
    std::fill(target, target + length, 0.0);
  } else {
    std::copy_n(static_cast<const double*>(data) + offset, length, target);
  }
}

template <>
inline void Columns<float>::copy(const void* data, ScalarType dtype, int64_t offset, int64_t length, float* target) {
  if (data == nullptr) {
    std::fill(target, target + length, 0.0f);
  } else if (dtype == ScalarType::BFloat16) {
    widen_bfloat16(static_cast<const bfloat16*>(data) + offset, length, target);
  } else if (dtype == ScalarType::Half) {
    widen_float16(static_cast<const float16*>(data) + offset, length, target);
  } else {
    std::copy_n(static_cast<const float*>(data) + offset, length, target);
  }
}

}  // namespace mtl
