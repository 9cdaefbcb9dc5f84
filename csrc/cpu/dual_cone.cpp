#include "common/kxk/dual_cone.h"

#include "cpu/kxk.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> dual_cone_cpu(Tensor gram, Tensor lower) {
  return solve_batch("mtl_ext::dual_cone", DualCone{}, gram, lower);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("dual_cone", TORCH_BOX(&dual_cone_cpu)); }

}  // namespace mtl
