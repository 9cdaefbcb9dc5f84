#pragma once

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// Doubles of scratch memory that launch_gram needs.
int64_t gram_scratch(const TensorLists& grads);

// gram [K, K] of K lists of gradients.
cudaError_t launch_gram(const TensorLists& grads, double* scratch, double* gram, cudaStream_t stream);

}  // namespace mtl
