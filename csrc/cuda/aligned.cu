#include "cuda/aligned.h"
#include "cuda/kxk.cuh"

namespace mtl {

cudaError_t launch_aligned(const KxkBatch& batch, const Aligned& solver, cudaStream_t stream) {
  return launch_kxk(solver, batch, stream);
}

}  // namespace mtl
