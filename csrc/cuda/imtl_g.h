#pragma once

#include "cuda/kxk.h"

namespace mtl {

cudaError_t launch_imtl_g(const KxkBatch& batch, double eps, cudaStream_t stream);

}  // namespace mtl
