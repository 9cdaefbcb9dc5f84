// What every glue file needs: the device and stream of its tensors, the check after a launch, and the place to
// register. The glue compiles for CUDA (namespace mtl_ext, key CUDA) and for the emulator (mtl_ext_emulation, key CPU).
#pragma once

#include <torch/csrc/stable/library.h>

#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"
#include "task_grads.h"

#if defined(MTL_EMULATION)
#define MTL_CUDA_LIBRARY(library) STABLE_TORCH_LIBRARY_IMPL(mtl_ext_emulation, CPU, library)
#else
#include <torch/csrc/stable/accelerator.h>
#define MTL_CUDA_LIBRARY(library) STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CUDA, library)
#endif

namespace mtl {

// Makes the tensor's device current for its lifetime; stream() is the device's current stream.
class DeviceScope {
 public:
#if defined(MTL_EMULATION)
  explicit DeviceScope(const Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
#else
  // Arguments that mix devices get here too, with a CPU tensor in front; the checks that follow refuse them.
  explicit DeviceScope(const Tensor& tensor)
      : device_(tensor.is_cpu() ? 0 : tensor.get_device_index()), guard_(device_) {}
  cudaStream_t stream() const {
    return static_cast<cudaStream_t>(torch::stable::accelerator::getCurrentStream(device_).nativeHandle());
  }

 private:
  torch::stable::accelerator::DeviceIndex device_;
  torch::stable::accelerator::DeviceGuard guard_;
#endif
};

inline void check_launch(const char* op, cudaError_t error) {
  MTL_CHECK(error == cudaSuccess, op, ": CUDA launch failed: ", cudaGetErrorString(error));
}

inline Dtype to_dtype(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return Dtype::kFloat64;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    case ScalarType::Half:
      return Dtype::kFloat16;
    default:
      return Dtype::kFloat32;
  }
}

// The gradients' addresses; the tensors stay with `grads`.
inline TensorLists tensor_lists(const TaskGrads& grads) {
  TensorLists lists{static_cast<int>(grads.num_tasks), grads.num_params, grads.data_, grads.numel, {}};
  for (const ScalarType dtype : grads.dtype) lists.dtype.push_back(to_dtype(dtype));
  return lists;
}

}  // namespace mtl
