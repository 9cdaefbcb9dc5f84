#include "cuda/gradvac.h"

#include "cuda/device_scope.h"
#include "gradvac_arguments.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor> gradvac_cuda(Tensor gram, Tensor order, Tensor target, double beta) {
  const char* op = "mtl_ext::gradvac";
  const DeviceScope scope(gram);
  const GradvacArguments arguments(op, gram, order, target, beta);
  const GradvacBatch batch = arguments.batch();
  MTL_CHECK(batch.num_tasks <= kMaxGradvacTasks, op, ": gram has K = ", batch.num_tasks,
            " tasks, the CUDA kernel takes at most ", kMaxGradvacTasks, ": move gram, order and target to the CPU");
  check_launch(op, launch_gradvac(batch, scope.stream()));
  return {arguments.weights, arguments.new_target};
}

}  // namespace

MTL_CUDA_LIBRARY(m) { m.impl("gradvac", TORCH_BOX(&gradvac_cuda)); }

}  // namespace mtl
