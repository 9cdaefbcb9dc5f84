#pragma once

#include "cuda/kxk.h"

namespace mtl {

cudaError_t launch_cagrad(const KxkBatch& batch, double c, double eps, cudaStream_t stream);

}  // namespace mtl
