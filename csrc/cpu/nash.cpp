#include "common/kxk/alpha_fair.h"
#include "cpu/kxk.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> nash_cpu(Tensor gram) { return solve_batch("mtl_ext::nash", AlphaFair{1.0}, gram); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("nash", TORCH_BOX(&nash_cpu)); }

}  // namespace mtl
