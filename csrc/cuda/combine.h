#pragma once

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// lists: K rows of gradients, then one of outputs; weights [K] on the device. At most kMaxCombineTasks tasks.
cudaError_t launch_combine(const TensorLists& lists, const double* weights, bool accumulate, cudaStream_t stream);

constexpr int kMaxCombineTasks = 2048;

}  // namespace mtl
