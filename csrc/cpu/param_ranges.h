// Element-wise work over the parameters of a list, in parallel.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "task_grads.h"

namespace mtl {

// The parameters' elements laid end to end: columns.
class ParamColumns {
 public:
  explicit ParamColumns(const std::vector<int64_t>& numel) : begin_(numel.size() + 1, 0) {
    std::partial_sum(numel.begin(), numel.end(), begin_.begin() + 1);
  }

  int64_t size() const { return begin_.back(); }
  int64_t num_chunks() const { return (size() + kChunkColumns - 1) / kChunkColumns; }

  // Calls visit(param, begin, end) for the ranges that columns from .. to are made of, in order.
  template <class Visit>
  void walk(int64_t from, int64_t to, const Visit& visit) const {
    size_t param = std::upper_bound(begin_.begin(), begin_.end(), from) - begin_.begin() - 1;
    for (; param + 1 < begin_.size() && begin_[param] < to; ++param) {
      const int64_t first = std::max(from, begin_[param]) - begin_[param];
      const int64_t last = std::min(to, begin_[param + 1]) - begin_[param];
      if (first < last) visit(static_cast<int64_t>(param), first, last);
    }
  }

 private:
  std::vector<int64_t> begin_;  // first column of each parameter
};

// Calls visit(param, begin, end) for ranges that together are all elements of all parameters, `grain` elements at least
// for each thread.
template <class Visit>
void for_each_range(const std::vector<int64_t>& numel, const Visit& visit, int64_t grain = kChunkColumns) {
  const ParamColumns columns(numel);
  torch::stable::parallel_for(0, columns.size(), grain,
                              [&](int64_t from, int64_t to) { columns.walk(from, to, visit); });
}

// Calls visit(chunk, param, begin, end) for the ranges of every chunk of kChunkColumns columns; those of one chunk come
// in order and on one thread, so that sums per chunk do not depend on the number of threads.
template <class Visit>
void for_each_chunk(const ParamColumns& columns, const Visit& visit) {
  torch::stable::parallel_for(0, columns.num_chunks(), 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t from = chunk * kChunkColumns;
      columns.walk(from, std::min(from + kChunkColumns, columns.size()),
                   [&](int64_t param, int64_t begin, int64_t end) { visit(chunk, param, begin, end); });
    }
  });
}

}  // namespace mtl
