// The point of minimum norm: one warp per problem of the batch, one warp per block, workspace in shared memory.
#include "common/kxk/min_norm.h"
#include "cuda/min_norm.h"
#include "cuda/reduce.cuh"

namespace mtl {
namespace {

// Grid: one block of one warp per problem. Shared memory: double [min_norm_workspace(K)].
__global__ void __launch_bounds__(kWarpSize)
    min_norm_kernel(int num_tasks, const double* gram, double* weights, double* certificate, int32_t* status) {
  MTL_DYN_SHARED(raw);
  const int64_t problem = blockIdx.x;
  min_norm(WarpTeam{}, num_tasks, gram + problem * num_tasks * num_tasks, weights + problem * num_tasks,
           certificate + problem, status + problem, reinterpret_cast<double*>(raw));
}

}  // namespace

static_assert(min_norm_workspace(kMaxMinNormTasks) * sizeof(double) <= 48 * 1024);

cudaError_t launch_min_norm(int64_t num_problems, int num_tasks, const double* gram, double* weights,
                            double* certificate, int32_t* status, cudaStream_t stream) {
  if (num_problems == 0) return cudaSuccess;
  const int shared_bytes = min_norm_workspace(num_tasks) * static_cast<int>(sizeof(double));
  MTL_LAUNCH(min_norm_kernel, static_cast<unsigned>(num_problems), kWarpSize, shared_bytes, stream)
  (num_tasks, gram, weights, certificate, status);
  return cudaGetLastError();
}

}  // namespace mtl
