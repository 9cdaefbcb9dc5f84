#include "common/kxk/cagrad.h"

#include "cpu/kxk.h"
#include "gram_arguments.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> cagrad_cpu(Tensor gram, double c, double eps) {
  const char* op = "mtl_ext::cagrad";
  check_gram(op, gram, /*batched=*/true);
  check_cagrad(op, c, eps);
  return solve_batch(op, CAGrad{c, eps}, gram);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("cagrad", TORCH_BOX(&cagrad_cpu)); }

}  // namespace mtl
