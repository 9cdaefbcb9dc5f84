// PCGrad's projections on the Gram matrix: one block, each warp projects the gradients of tasks w, w + W, ... and
// leaves their coefficients in shared memory; then every thread adds one column, in task order.
#include "common/kxk/pcgrad.h"
#include "cuda/pcgrad.h"
#include "cuda/reduce.cuh"

namespace mtl {
namespace {

constexpr int kMaxWarps = 16;
constexpr int kMaxThreads = kMaxWarps * kWarpSize;

// Grid: one block of whole warps. Shared memory: double [K, K], row i the coefficients of task i's projected gradient.
__global__ void __launch_bounds__(kMaxThreads)
    pcgrad_kernel(int num_tasks, const double* gram, const int64_t* order, double* weights) {
  MTL_DYN_SHARED(raw);
  double* coefficients = reinterpret_cast<double*>(raw);
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  const WarpTeam team;
  for (int task = static_cast<int>(threadIdx.x) / kWarpSize; task < num_tasks; task += warps) {
    pcgrad_row(team, num_tasks, gram, order + task * (num_tasks - 1), task, coefficients + task * num_tasks);
  }
  __syncthreads();
  for (int k = threadIdx.x; k < num_tasks; k += static_cast<int>(blockDim.x)) {
    double sum = 0;
    for (int task = 0; task < num_tasks; ++task) sum += coefficients[task * num_tasks + k];
    weights[k] = sum;
  }
}

}  // namespace

cudaError_t launch_pcgrad(int num_tasks, const double* gram, const int64_t* order, double* weights,
                          cudaStream_t stream) {
  const int shared_bytes = num_tasks * num_tasks * static_cast<int>(sizeof(double));
  const cudaError_t error = allow_shared_memory(pcgrad_kernel, shared_bytes);
  if (error != cudaSuccess) return error;
  const int warps = num_tasks < kMaxWarps ? num_tasks : kMaxWarps;
  MTL_LAUNCH(pcgrad_kernel, 1, warps * kWarpSize, shared_bytes, stream)(num_tasks, gram, order, weights);
  return cudaGetLastError();
}

}  // namespace mtl
