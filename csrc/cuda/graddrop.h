#pragma once

#include "common/graddrop.h"
#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// lists: K rows of gradients, one of outputs, and without a seed one of uniform numbers, which are float32 whatever the
// list's dtype. The pointers of `rule` are device memory. At most kMaxGradDropTasks tasks.
cudaError_t launch_graddrop(const TensorLists& lists, int num_tasks, const DropRule& rule, cudaStream_t stream);

constexpr int kMaxGradDropTasks = 2048;

}  // namespace mtl
