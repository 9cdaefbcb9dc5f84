// GradVac's corrections on the Gram matrix: one block per group, each warp corrects the gradients of tasks w, w + W,
// ... and leaves their coefficients in shared memory; then every thread adds one column, in task order.
#include "cuda/gradvac.h"
#include "cuda/reduce.cuh"

namespace mtl {
namespace {

constexpr int kMaxWarps = 16;
constexpr int kMaxThreads = kMaxWarps * kWarpSize;

// Grid: one block of whole warps per group. Shared memory: double [K + W + 1, K], row i < K the coefficients of task
// i's corrected gradient, then the products of each warp's running gradient, then the inverse norms of the gradients.
__global__ void __launch_bounds__(kMaxThreads) gradvac_kernel(GradvacBatch batch) {
  MTL_DYN_SHARED(raw);
  double* coefficients = reinterpret_cast<double*>(raw);
  const GradvacBatch group = batch.group(blockIdx.x);
  const int num_tasks = group.num_tasks;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const WarpTeam team;
  if (!all_finite(team, group.gram, num_tasks * num_tasks)) {  // every warp finds the same
    if (warp == 0) gradvac_refuse(team, group);
    return;
  }
  double* products = coefficients + (num_tasks + warp) * num_tasks;
  double* inverse = coefficients + (num_tasks + warps) * num_tasks;
  if (warp == 0) gradvac_inverse_norms(team, group, inverse);
  __syncthreads();
  for (int task = warp; task < num_tasks; task += warps) {
    gradvac_row(team, group, inverse, task, coefficients + task * num_tasks, products);
  }
  __syncthreads();
  for (int k = threadIdx.x; k < num_tasks; k += static_cast<int>(blockDim.x)) {
    double sum = 0;
    for (int task = 0; task < num_tasks; ++task) sum += coefficients[task * num_tasks + k];
    group.weights[k] = sum;
  }
}

}  // namespace

cudaError_t launch_gradvac(const GradvacBatch& batch, cudaStream_t stream) {
  if (batch.num_groups == 0) return cudaSuccess;
  const int warps = batch.num_tasks < kMaxWarps ? batch.num_tasks : kMaxWarps;
  const int shared_bytes = (batch.num_tasks + warps + 1) * batch.num_tasks * static_cast<int>(sizeof(double));
  const cudaError_t error = allow_shared_memory(gradvac_kernel, shared_bytes);
  if (error != cudaSuccess) return error;
  MTL_LAUNCH(gradvac_kernel, static_cast<unsigned>(batch.num_groups), warps * kWarpSize, shared_bytes, stream)(batch);
  return cudaGetLastError();
}

}  // namespace mtl
