#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace mtl {

// Their workspace fits the 48 KB of shared memory that every block may have.
constexpr int kMaxMinNormTasks = 64;

// weights [B, K], certificate [B] and status [B] of B problems gram [B, K, K].
cudaError_t launch_min_norm(int64_t num_problems, int num_tasks, const double* gram, double* weights,
                            double* certificate, int32_t* status, cudaStream_t stream);

}  // namespace mtl
