#pragma once

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

namespace mtl {

// Doubles of device memory that launch_perturb needs as scratch.
int64_t perturb_scratch(const TensorLists& lists);

// lists: parameters, direction, and the outputs of both sides; writes eps [] on the device.
cudaError_t launch_perturb(const TensorLists& lists, double radius, bool relative, double* scratch, double* eps,
                           cudaStream_t stream);

}  // namespace mtl
