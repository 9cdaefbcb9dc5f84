// Parameters moved to both sides along a direction. One pass for the norms: squares in double, a partial sum per chunk,
// added in chunk order; one pass that reads parameters and direction and writes both sides. An output may be the very
// memory of the direction: every vector is read before it is written.
#include "common/perturb.h"

#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "cpu/doubles.h"
#include "cpu/param_ranges.h"
#include "cpu/vector.h"
#include "perturb_arguments.h"

namespace mtl {
namespace {

template <class T>
MTL_INLINE double add_squares(const T* values, int64_t begin, int64_t end) {
  constexpr int kStrip = 8;
  Vector<double> sum[kStrip] = {};
  int64_t i = begin;
  for (; i + kStrip * kDoubles <= end; i += kStrip * kDoubles) {
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) {
      const Vector<double> x = load_doubles(values + i + s * kDoubles);
      sum[s] += x * x;
    }
  }
  double total = 0;
  for (; i < end; ++i) total += static_cast<double>(widen(values[i])) * widen(values[i]);
  for (int s = 1; s < kStrip; ++s) sum[0] += sum[s];
  return total + ((sum[0][0] + sum[0][1]) + (sum[0][2] + sum[0][3]));
}

MTL_CLONES double sum_of_squares(const void* values, ScalarType dtype, int64_t begin, int64_t end) {
  switch (dtype) {
    case ScalarType::Double:
      return add_squares(static_cast<const double*>(values), begin, end);
    case ScalarType::Float:
      return add_squares(static_cast<const float*>(values), begin, end);
    case ScalarType::BFloat16:
      return add_squares(static_cast<const bfloat16*>(values), begin, end);
    default:
      return add_squares(static_cast<const float16*>(values), begin, end);
  }
}

// The square of the norm of one row of the list.
double square_of_norm(const TaskGrads& rows, int64_t row) {
  const ParamColumns columns(rows.numel);
  std::vector<double> partial(columns.num_chunks());
  for_each_chunk(columns, [&](int64_t chunk, int64_t param, int64_t begin, int64_t end) {
    if (!rows.present(row, param)) return;
    partial[chunk] += sum_of_squares(rows.data(row, param), rows.dtype[param], begin, end);
  });
  double total = 0;
  for (const double sum : partial) total += sum;
  return total;
}

// One parameter; `direction` is null where it is absent.
struct Move {
  const void* params;
  const void* direction;
  void* plus;
  void* minus;
};

template <class T>
MTL_INLINE void move_one(const Move& move, double eps, int64_t i) {
  const double from = widen(static_cast<const T*>(move.params)[i]);
  const double step = move.direction ? eps * widen(static_cast<const T*>(move.direction)[i]) : 0;
  static_cast<T*>(move.plus)[i] = narrow_double<T>(from + step);
  static_cast<T*>(move.minus)[i] = narrow_double<T>(from - step);
}

template <class T>
MTL_INLINE void move_columns(const Move& move, double eps, bool stream, int64_t begin, int64_t end) {
  const T* params = static_cast<const T*>(move.params);
  const T* direction = static_cast<const T*>(move.direction);
  T* plus = static_cast<T*>(move.plus);
  T* minus = static_cast<T*>(move.minus);
  int64_t i = begin;
  for (; stream && i < end && !can_stream(plus + i); ++i) move_one<T>(move, eps, i);
  stream = stream && can_stream(minus + i);
  for (; i + kDoubles <= end; i += kDoubles) {
    const Vector<double> from = load_doubles(params + i);
    const Vector<double> step = direction ? eps * load_doubles(direction + i) : Vector<double>{};
    if (stream) {
      stream_doubles(plus + i, from + step);
      stream_doubles(minus + i, from - step);
    } else {
      store_doubles(plus + i, from + step);
      store_doubles(minus + i, from - step);
    }
  }
  for (; i < end; ++i) move_one<T>(move, eps, i);
  if (stream) end_stream();
}

MTL_CLONES void move_range(const Move& move, ScalarType dtype, double eps, bool stream, int64_t begin, int64_t end) {
  switch (dtype) {
    case ScalarType::Double:
      return move_columns<double>(move, eps, stream, begin, end);
    case ScalarType::Float:
      return move_columns<float>(move, eps, stream, begin, end);
    case ScalarType::BFloat16:
      return move_columns<bfloat16>(move, eps, stream, begin, end);
    default:
      return move_columns<float16>(move, eps, stream, begin, end);
  }
}

// Writes both sides and returns eps.
Tensor write_perturbed(const TaskGrads& rows, double radius, bool relative, const std::vector<Tensor>& plus,
                       const std::vector<Tensor>& minus) {
  const double eps = step_size(radius, relative, relative ? square_of_norm(rows, 0) : 0, square_of_norm(rows, 1));
  std::vector<Move> moves(rows.num_params);
  for (int64_t param = 0; param < rows.num_params; ++param) {
    if (rows.numel[param] == 0) continue;
    moves[param] = {rows.data(0, param), rows.data(1, param), plus[param].mutable_data_ptr(),
                    minus[param].mutable_data_ptr()};
  }
  const bool stream = 2 * num_bytes(rows) > kStreamBytes;
  for_each_range(rows.numel, [&](int64_t param, int64_t begin, int64_t end) {
    move_range(moves[param], rows.dtype[param], eps, stream, begin, end);
  });
  Tensor result = torch::stable::new_empty(rows.tensors[0], {}, ScalarType::Double);
  *result.mutable_data_ptr<double>() = eps;
  return result;
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, Tensor> perturb_cpu(std::vector<Tensor> params,
                                                                         std::vector<Tensor> direction, double radius,
                                                                         bool relative) {
  const TaskGrads rows = check_perturb("mtl_ext::perturb", params, direction, {});
  const std::vector<Tensor> plus = new_outputs(rows);
  const std::vector<Tensor> minus = new_outputs(rows);
  const Tensor eps = write_perturbed(rows, radius, relative, plus, minus);
  return {plus, minus, eps};
}

Tensor perturb_into_cpu(std::vector<Tensor> plus, std::vector<Tensor> minus, std::vector<Tensor> params,
                        std::vector<Tensor> direction, double radius, bool relative) {
  const NamedLists writes = {{"plus", &plus}, {"minus", &minus}};
  return write_perturbed(check_perturb("mtl_ext::perturb_", params, direction, writes), radius, relative, plus, minus);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) {
  m.impl("perturb", TORCH_BOX(&perturb_cpu));
  m.impl("perturb_", TORCH_BOX(&perturb_into_cpu));
}

}  // namespace mtl
