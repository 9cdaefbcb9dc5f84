#include "common/kxk/imtl_g.h"

#include "cpu/kxk.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> imtl_g_cpu(Tensor gram, double eps) {
  return solve_batch("mtl_ext::imtl_g", ImtlG{eps}, gram);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("imtl_g", TORCH_BOX(&imtl_g_cpu)); }

}  // namespace mtl
