#pragma once

#include "cuda/kxk.h"

namespace mtl {

cudaError_t launch_fairgrad(const KxkBatch& batch, double alpha, cudaStream_t stream);

}  // namespace mtl
