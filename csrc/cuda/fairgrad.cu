#include "common/kxk/alpha_fair.h"
#include "cuda/fairgrad.h"
#include "cuda/kxk.cuh"

namespace mtl {

cudaError_t launch_fairgrad(const KxkBatch& batch, double alpha, cudaStream_t stream) {
  return launch_kxk(AlphaFair{alpha}, batch, stream);
}

}  // namespace mtl
