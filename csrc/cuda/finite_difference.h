#pragma once

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// lists: the gradients at both sides, then the outputs; eps on the device.
cudaError_t launch_finite_difference(const TensorLists& lists, const double* eps, bool accumulate, cudaStream_t stream);

}  // namespace mtl
