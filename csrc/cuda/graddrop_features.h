#pragma once

#include <vector>

#include "common/graddrop.h"
#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// lists: K rows of gradients, one of features, one of outputs, and without a seed one of uniform numbers (float32);
// numel counts the positions of one sample, batch [P] the samples. The pointers of `rule` are device memory. At most
// kMaxFeatureTasks tasks.
cudaError_t launch_graddrop_features(const TensorLists& lists, const std::vector<int64_t>& batch, int num_tasks,
                                     const DropRule& rule, cudaStream_t stream);

constexpr int kMaxFeatureTasks = 64;

}  // namespace mtl
