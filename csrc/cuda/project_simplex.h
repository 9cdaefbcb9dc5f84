#pragma once

#include "common/kxk/project_simplex.h"
#include "cuda/runtime.h"

namespace mtl {

cudaError_t launch_project_simplex(const SimplexBatch& batch, cudaStream_t stream);

}  // namespace mtl
