// Runs a K×K solver (common/kxk/solve.h) on every problem of a batch: one warp per problem, one warp per block, the
// workspace in shared memory.
#pragma once

#include "common/kxk/solve.h"
#include "cuda/kxk.h"
#include "cuda/reduce.cuh"

namespace mtl {

// Grid: one block of one warp per problem. Shared memory: double [Solver::workspace(K)].
// One block per multiprocessor is all that is asked for: else ptxas spills registers to make room for 32.
template <class Solver>
__global__ void __launch_bounds__(kWarpSize, 1) kxk_kernel(Solver solver, KxkBatch batch) {
  MTL_DYN_SHARED(raw);
  const int64_t problem = blockIdx.x;
  const int64_t matrix = static_cast<int>(blockIdx.x) / batch.rows_per_gram;
  const int num_tasks = batch.num_tasks;
  solve_problem(solver, WarpTeam{}, num_tasks, batch.gram + matrix * num_tasks * num_tasks,
                batch.rows == nullptr ? nullptr : batch.rows + problem * num_tasks, batch.weights + problem * num_tasks,
                batch.certificate + problem, batch.status + problem, reinterpret_cast<double*>(raw));
}

template <class Solver>
cudaError_t launch_kxk(const Solver& solver, const KxkBatch& batch, cudaStream_t stream) {
  static_assert(Solver::workspace(kMaxSolverTasks) * sizeof(double) <= kMaxSolverSharedBytes);
  if (batch.num_problems == 0) return cudaSuccess;
  const int shared_bytes = Solver::workspace(batch.num_tasks) * static_cast<int>(sizeof(double));
  const cudaError_t error = allow_shared_memory(kxk_kernel<Solver>, shared_bytes);
  if (error != cudaSuccess) return error;
  MTL_LAUNCH(kxk_kernel<Solver>, static_cast<unsigned>(batch.num_problems), kWarpSize, shared_bytes, stream)
  (solver, batch);
  return cudaGetLastError();
}

}  // namespace mtl
