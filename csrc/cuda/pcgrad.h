#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace mtl {

// Their K x K coefficients fit the shared memory of a block on every architecture from sm_80.
constexpr int kMaxPcgradTasks = 112;

// weights [K] from gram [K, K] and order [K, K - 1].
cudaError_t launch_pcgrad(int num_tasks, const double* gram, const int64_t* order, double* weights,
                          cudaStream_t stream);

}  // namespace mtl
