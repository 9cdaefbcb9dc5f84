#include "aligned_arguments.h"
#include "cpu/kxk.h"

namespace mtl {
namespace {

std::tuple<Tensor, Tensor, Tensor> aligned_cpu(Tensor gram, std::string scale_mode, double eps,
                                               std::optional<Tensor> preference) {
  const char* op = "mtl_ext::aligned";
  const Aligned solver = check_aligned(op, gram, preference, scale_mode, eps);
  return without_rows(solve_batch(op, solver, gram, preference_rows(gram, preference)), preference.has_value());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("aligned", TORCH_BOX(&aligned_cpu)); }

}  // namespace mtl
