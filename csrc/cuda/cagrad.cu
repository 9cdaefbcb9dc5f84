#include "common/kxk/cagrad.h"
#include "cuda/cagrad.h"
#include "cuda/kxk.cuh"

namespace mtl {

cudaError_t launch_cagrad(const KxkBatch& batch, double c, double eps, cudaStream_t stream) {
  return launch_kxk(CAGrad{c, eps}, batch, stream);
}

}  // namespace mtl
