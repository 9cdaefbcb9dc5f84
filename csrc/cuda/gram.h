#pragma once

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// The group of each parameter, [P] in 0 .. count - 1.
struct Groups {
  std::vector<int64_t> of_param;
  int64_t count;
};

// Doubles of scratch memory that launch_gram needs.
int64_t gram_scratch(const TensorLists& grads, const Groups& groups);

// gram [G, K, K] of K lists of gradients.
cudaError_t launch_gram(const TensorLists& grads, const Groups& groups, double* scratch, double* gram,
                        cudaStream_t stream);

}  // namespace mtl
