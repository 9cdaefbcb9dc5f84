#pragma once

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// Weights of the tasks on the device: [K] (stride 0), or a row per parameter [P, K] (stride K).
struct TaskWeights {
  const double* data;
  int64_t stride;
};

// lists: K rows of gradients, then one of outputs. At most kMaxCombineTasks tasks.
cudaError_t launch_combine(const TensorLists& lists, const TaskWeights& weights, bool accumulate, cudaStream_t stream);

constexpr int kMaxCombineTasks = 2048;

}  // namespace mtl
