#include "common/kxk/alpha_fair.h"
#include "cuda/kxk.cuh"
#include "cuda/nash.h"

namespace mtl {

cudaError_t launch_nash(const KxkBatch& batch, cudaStream_t stream) {
  return launch_kxk(AlphaFair{1.0}, batch, stream);
}

}  // namespace mtl
