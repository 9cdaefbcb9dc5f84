// Element-wise work over the parameters of a list, in parallel.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "task_grads.h"

namespace mtl {

// Calls visit(param, begin, end) for ranges that together are all elements of all parameters, `grain` elements at least
// for each thread.
template <class Visit>
void for_each_range(const std::vector<int64_t>& numel, const Visit& visit, int64_t grain = kChunkColumns) {
  const int64_t num_params = static_cast<int64_t>(numel.size());
  std::vector<int64_t> begin(num_params + 1, 0);  // first column of each parameter
  for (int64_t param = 0; param < num_params; ++param) begin[param + 1] = begin[param] + numel[param];
  torch::stable::parallel_for(0, begin.back(), grain, [&](int64_t from, int64_t to) {
    int64_t param = std::upper_bound(begin.begin(), begin.end(), from) - begin.begin() - 1;
    for (; param < num_params && begin[param] < to; ++param) {
      const int64_t first = std::max(from - begin[param], int64_t{0});
      const int64_t last = std::min(to - begin[param], numel[param]);
      if (first < last) visit(param, first, last);
    }
  });
}

}  // namespace mtl
