#pragma once

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// Doubles of device memory that launch_saliency_entropy needs as scratch.
int64_t saliency_entropy_scratch(const TensorLists& grads);

// grads: K rows. Writes the mean entropy over `positions` positions and the number of all-zero ones.
cudaError_t launch_saliency_entropy(const TensorLists& grads, int64_t positions, double* scratch, double* entropy,
                                    int64_t* zero_columns, cudaStream_t stream);

// lists: K rows of gradients, then the entropy of every position: float32, float64 for float64.
cudaError_t launch_saliency_entropy_map(const TensorLists& lists, cudaStream_t stream);

constexpr int kMaxEntropyTasks = 2048;

}  // namespace mtl
