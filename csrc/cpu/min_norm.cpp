#include "common/kxk/min_norm.h"

#include "cpu/kxk.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> min_norm_cpu(Tensor gram) {
  return solve_batch("mtl_ext::min_norm", MinNorm{}, gram);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("min_norm", TORCH_BOX(&min_norm_cpu)); }

}  // namespace mtl
