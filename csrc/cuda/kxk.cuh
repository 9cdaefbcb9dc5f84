// Runs a K×K solver (common/kxk/solve.h) on every problem of a batch: one warp per problem, one warp per block, the
// workspace in shared memory.
#pragma once

#include "common/kxk/solve.h"
#include "cuda/kxk.h"
#include "cuda/reduce.cuh"

namespace mtl {

// Grid: one block of one warp per problem. Shared memory: double [Solver::workspace(K)].
template <class Solver>
__global__ void __launch_bounds__(kWarpSize) kxk_kernel(Solver solver, int num_tasks, const double* gram,
                                                        double* weights, double* certificate, int32_t* status) {
  MTL_DYN_SHARED(raw);
  const int64_t problem = blockIdx.x;
  solve_problem(solver, WarpTeam{}, num_tasks, gram + problem * num_tasks * num_tasks, weights + problem * num_tasks,
                certificate + problem, status + problem, reinterpret_cast<double*>(raw));
}

template <class Solver>
cudaError_t launch_kxk(const Solver& solver, const KxkBatch& batch, cudaStream_t stream) {
  static_assert(Solver::workspace(kMaxSolverTasks) * sizeof(double) <= kMaxSolverSharedBytes);
  if (batch.num_problems == 0) return cudaSuccess;
  const int shared_bytes = Solver::workspace(batch.num_tasks) * static_cast<int>(sizeof(double));
  const cudaError_t error = allow_shared_memory(kxk_kernel<Solver>, shared_bytes);
  if (error != cudaSuccess) return error;
  MTL_LAUNCH(kxk_kernel<Solver>, static_cast<unsigned>(batch.num_problems), kWarpSize, shared_bytes, stream)
  (solver, batch.num_tasks, batch.gram, batch.weights, batch.certificate, batch.status);
  return cudaGetLastError();
}

}  // namespace mtl
