#include "common/kxk/alpha_fair.h"
#include "cpu/kxk.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> fairgrad_cpu(Tensor gram, double alpha) {
  check_alpha("mtl_ext::fairgrad", alpha);
  return solve_batch("mtl_ext::fairgrad", AlphaFair{alpha}, gram);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("fairgrad", TORCH_BOX(&fairgrad_cpu)); }

}  // namespace mtl
