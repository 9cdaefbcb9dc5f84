// The central difference of two lists of gradients in one pass, in double, rounded once. The output may be the very
// memory of either list: every vector is read before it is written.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "common/perturb.h"
#include "cpu/doubles.h"
#include "cpu/param_ranges.h"
#include "cpu/vector.h"
#include "perturb_arguments.h"

namespace mtl {
namespace {

// One parameter; `plus` or `minus` is null where it is absent, both where they are not to be read.
struct Difference {
  const void* plus;
  const void* minus;
  void* out;
};

template <class T>
MTL_INLINE void subtract_one(const Difference& difference, double factor, bool accumulate, int64_t i) {
  const double up = difference.plus ? widen(static_cast<const T*>(difference.plus)[i]) : 0;
  const double down = difference.minus ? widen(static_cast<const T*>(difference.minus)[i]) : 0;
  T* out = static_cast<T*>(difference.out);
  out[i] = narrow_double<T>((accumulate ? widen(out[i]) : 0) + factor * (up - down));
}

template <class T>
MTL_INLINE void subtract_columns(const Difference& difference, double factor, bool accumulate, bool stream,
                                 int64_t begin, int64_t end) {
  const T* plus = static_cast<const T*>(difference.plus);
  const T* minus = static_cast<const T*>(difference.minus);
  T* out = static_cast<T*>(difference.out);
  const Vector<double> zero = {};
  int64_t i = begin;
  for (; stream && i < end && !can_stream(out + i); ++i) subtract_one<T>(difference, factor, accumulate, i);
  for (; i + kDoubles <= end; i += kDoubles) {
    const Vector<double> up = plus ? load_doubles(plus + i) : zero;
    const Vector<double> down = minus ? load_doubles(minus + i) : zero;
    const Vector<double> start = accumulate ? load_doubles(out + i) : zero;
    if (stream) {
      stream_doubles(out + i, start + factor * (up - down));
    } else {
      store_doubles(out + i, start + factor * (up - down));
    }
  }
  for (; i < end; ++i) subtract_one<T>(difference, factor, accumulate, i);
  if (stream) end_stream();
}

MTL_CLONES void subtract_range(const Difference& difference, ScalarType dtype, double factor, bool accumulate,
                               bool stream, int64_t begin, int64_t end) {
  switch (dtype) {
    case ScalarType::Double:
      return subtract_columns<double>(difference, factor, accumulate, stream, begin, end);
    case ScalarType::Float:
      return subtract_columns<float>(difference, factor, accumulate, stream, begin, end);
    case ScalarType::BFloat16:
      return subtract_columns<bfloat16>(difference, factor, accumulate, stream, begin, end);
    default:
      return subtract_columns<float16>(difference, factor, accumulate, stream, begin, end);
  }
}

void write_difference(const TaskGrads& rows, const Tensor& eps, bool accumulate, const std::vector<Tensor>& out) {
  const double factor = difference_factor(*eps.const_data_ptr<double>());
  std::vector<Difference> differences(rows.num_params);
  for (int64_t param = 0; param < rows.num_params; ++param) {
    if (rows.numel[param] == 0) continue;
    differences[param].out = out[param].mutable_data_ptr();
    if (factor == 0) continue;
    differences[param].plus = rows.data(0, param);
    differences[param].minus = rows.data(1, param);
  }
  const bool stream = !accumulate && num_bytes(rows) > kStreamBytes;
  for_each_range(rows.numel, [&](int64_t param, int64_t begin, int64_t end) {
    subtract_range(differences[param], rows.dtype[param], factor, accumulate, stream, begin, end);
  });
}

std::vector<Tensor> finite_difference_cpu(std::vector<Tensor> plus, std::vector<Tensor> minus, Tensor eps) {
  const char* op = "mtl_ext::finite_difference";
  const TaskGrads rows = check_difference(op, plus, minus, eps, {});
  const std::vector<Tensor> out = new_outputs(rows);
  write_difference(rows, eps, /*accumulate=*/false, out);
  return out;
}

void finite_difference_into_cpu(std::vector<Tensor> out, std::vector<Tensor> plus, std::vector<Tensor> minus,
                                Tensor eps, bool accumulate) {
  const char* op = "mtl_ext::finite_difference_";
  write_difference(check_difference(op, plus, minus, eps, {{"out", &out}}), eps, accumulate, out);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) {
  m.impl("finite_difference", TORCH_BOX(&finite_difference_cpu));
  m.impl("finite_difference_", TORCH_BOX(&finite_difference_into_cpu));
}

}  // namespace mtl
