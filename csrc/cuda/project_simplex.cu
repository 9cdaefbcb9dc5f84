// Projections onto the simplex: one warp per vector. No workspace: a pass reads the values again, from the cache.
#include "cuda/project_simplex.h"
#include "cuda/reduce.cuh"

namespace mtl {
namespace {

constexpr int kWarps = 4;

// Grid: a warp per problem, kWarps per block.
__global__ void __launch_bounds__(kWarps* kWarpSize) project_simplex_kernel(SimplexBatch batch) {
  const int64_t problem = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  if (problem < batch.num_problems) project_problem(WarpTeam{}, batch, problem);
}

}  // namespace

cudaError_t launch_project_simplex(const SimplexBatch& batch, cudaStream_t stream) {
  if (batch.num_problems == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>((batch.num_problems + kWarps - 1) / kWarps);
  MTL_LAUNCH(project_simplex_kernel, blocks, kWarps * kWarpSize, 0, stream)(batch);
  return cudaGetLastError();
}

}  // namespace mtl
