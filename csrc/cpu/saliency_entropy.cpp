// Entropy of the tasks' shares, position by position: the tasks are read from memory once and found in the first-level
// cache by the second look. With true quotients as shares, one logarithm per task and position is enough, a task alone
// has entropy exactly 0, and no scale of the gradients does harm. Entropies are added in double, a partial sum per
// chunk, in chunk order.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/dtypes.h"
#include "cpu/logarithm.h"
#include "cpu/param_ranges.h"
#include "cpu/vector.h"
#include "saliency_arguments.h"

namespace mtl {
namespace {

// An integer as wide as W.
template <class W>
using Lane = std::conditional_t<std::is_same_v<W, double>, int64_t, int32_t>;

// The present gradients of one parameter.
using Rows = std::vector<const void*>;

struct Partial {
  double entropy = 0;
  int64_t zero_columns = 0;
};

// Vectors of a strip.
constexpr int kStrip = 4;

// Sums above this are near overflow.
template <class W>
constexpr W kLarge = std::numeric_limits<W>::max() / 4;

template <class T>
MTL_INLINE Vector<Wide<T>> magnitudes(const void* row, int64_t begin) {
  using W = Wide<T>;
  const T* source = static_cast<const T*>(row) + begin;
  Vector<W> values = {};
  if constexpr (std::is_same_v<T, W>) {
    values = load(source);
  } else {
    for (int lane = 0; lane < kLanes<W>; ++lane) values[lane] = widen(source[lane]);
  }
  const Vector<Lane<W>> without_sign = Vector<Lane<W>>{} + std::numeric_limits<Lane<W>>::max();
  return reinterpret_cast<Vector<W>>(reinterpret_cast<Vector<Lane<W>>>(values) & without_sign);
}

// One column at a time, for what is left behind the last strip and for sums near overflow: those are taken on a smaller
// scale. Returns the entropy.
template <class T>
MTL_INLINE Wide<T> column_entropy(const Rows& rows, int64_t column, int64_t* zero_columns) {
  using W = Wide<T>;
  const auto magnitude = [&](const void* row) { return std::abs(widen(static_cast<const T*>(row)[column])); };
  W largest = 0;
  for (const void* row : rows) largest = std::max(largest, magnitude(row));
  const W scale = largest > kLarge<W> * W(0x1p-60) ? W(0x1p-64) : W(1);
  W sum = 0;
  for (const void* row : rows) sum += scale * magnitude(row);
  if (sum == 0) ++*zero_columns;
  W entropy = 0;
  for (const void* row : rows) {
    const W share = scale * magnitude(row) / (sum == 0 ? W(1) : sum);
    if (!(share == 0)) entropy -= share * std::log(share);
  }
  return entropy;
}

template <class Mask>
MTL_INLINE bool any_of(Mask mask) {
  const Vector<int64_t> words = reinterpret_cast<Vector<int64_t>>(mask);
  return (words[0] | words[1] | words[2] | words[3]) != 0;
}

MTL_INLINE void add_to(Vector<double>& total, Vector<double> values) { total += values; }

MTL_INLINE void add_to(Vector<double>& total, Vector<float> values) {
  total += __builtin_convertvector(__builtin_shufflevector(values, values, 0, 1, 2, 3), Vector<double>);
  total += __builtin_convertvector(__builtin_shufflevector(values, values, 4, 5, 6, 7), Vector<double>);
}

// The entropies of one strip, and -1 in `zero` where all gradients are zero. False: a sum is near overflow.
template <class T>
MTL_INLINE bool strip_entropies(const Rows& rows, int64_t begin, Vector<Wide<T>>* entropy,
                                Vector<Lane<Wide<T>>>* zero) {
  using W = Wide<T>;
  const Vector<W> none = {}, one = none + 1, large = none + kLarge<W>;
  Vector<W> sum[kStrip] = {}, share[kStrip];
  Vector<Lane<W>> too_large = {};
  for (const void* row : rows) {
#pragma GCC unroll 4
    for (int s = 0; s < kStrip; ++s) sum[s] += magnitudes<T>(row, begin + s * kLanes<W>);
  }
#pragma GCC unroll 4
  for (int s = 0; s < kStrip; ++s) {
    too_large |= sum[s] > large;
    zero[s] = sum[s] == none;
    sum[s] = zero[s] ? one : sum[s];
    entropy[s] = none;
  }
  if (any_of(too_large)) return false;
  for (const void* row : rows) {
#pragma GCC unroll 4
    for (int s = 0; s < kStrip; ++s) share[s] = magnitudes<T>(row, begin + s * kLanes<W>) / sum[s];
#pragma GCC unroll 4
    for (int s = 0; s < kStrip; ++s) entropy[s] -= share[s] * logarithm(share[s]);
  }
  return true;
}

// Columns begin .. end of a parameter; `map` may be null.
template <class T>
MTL_INLINE Partial entropy_columns(const Rows& rows, int64_t begin, int64_t end, void* map) {
  using W = Wide<T>;
  constexpr int kColumns = kStrip * kLanes<W>;
  W* positions = static_cast<W*>(map);
  Vector<double> total = {};
  Vector<Lane<W>> zeros = {};
  Partial partial;
  for (int64_t c = begin; c < end;) {
    Vector<W> entropy[kStrip];
    Vector<Lane<W>> zero[kStrip];
    if (c + kColumns <= end && strip_entropies<T>(rows, c, entropy, zero)) {
#pragma GCC unroll 4
      for (int s = 0; s < kStrip; ++s) {
        if (map != nullptr) store(positions + c + s * kLanes<W>, entropy[s]);
        zeros -= zero[s];
      }
      add_to(total, (entropy[0] + entropy[1]) + (entropy[2] + entropy[3]));
      c += kColumns;
      continue;
    }
    for (const int64_t last = std::min(c + kColumns, end); c < last; ++c) {
      const W value = column_entropy<T>(rows, c, &partial.zero_columns);
      if (map != nullptr) positions[c] = value;
      partial.entropy += value;
    }
  }
  partial.entropy += (total[0] + total[1]) + (total[2] + total[3]);
  for (int lane = 0; lane < kLanes<W>; ++lane) partial.zero_columns += zeros[lane];
  return partial;
}

MTL_CLONES Partial entropy_range(const Rows& rows, ScalarType dtype, int64_t begin, int64_t end, void* map) {
  switch (dtype) {
    case ScalarType::Double:
      return entropy_columns<double>(rows, begin, end, map);
    case ScalarType::Float:
      return entropy_columns<float>(rows, begin, end, map);
    case ScalarType::BFloat16:
      return entropy_columns<bfloat16>(rows, begin, end, map);
    default:
      return entropy_columns<float16>(rows, begin, end, map);
  }
}

// The sums over all positions; writes every position's entropy where there is a map.
Partial add_entropies(const TaskGrads& grads, const std::vector<Tensor>& map) {
  std::vector<Rows> rows(grads.num_params);
  std::vector<void*> target(grads.num_params, nullptr);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    for (int64_t k = 0; k < grads.num_tasks; ++k) {
      if (grads.present(k, param)) rows[param].push_back(grads.data(k, param));
    }
    if (!map.empty() && grads.numel[param] > 0) target[param] = map[param].mutable_data_ptr();
  }
  const ParamColumns columns(grads.numel);
  std::vector<Partial> partials(columns.num_chunks());
  for_each_chunk(columns, [&](int64_t chunk, int64_t param, int64_t begin, int64_t end) {
    const Partial partial = entropy_range(rows[param], grads.dtype[param], begin, end, target[param]);
    partials[chunk].entropy += partial.entropy;
    partials[chunk].zero_columns += partial.zero_columns;
  });
  Partial total;
  for (const Partial& partial : partials) {
    total.entropy += partial.entropy;
    total.zero_columns += partial.zero_columns;
  }
  return total;
}

std::tuple<Tensor, Tensor> saliency_entropy_cpu(std::vector<Tensor> list, int64_t num_tasks) {
  const TaskGrads grads = check_task_grads("mtl_ext::saliency_entropy", std::move(list), num_tasks);
  const Partial total = add_entropies(grads, {});
  Tensor entropy = torch::stable::new_empty(grads.tensors[0], {}, ScalarType::Double);
  Tensor zero_columns = torch::stable::new_empty(grads.tensors[0], {}, ScalarType::Long);
  *entropy.mutable_data_ptr<double>() = total.entropy / static_cast<double>(num_positions(grads));
  *zero_columns.mutable_data_ptr<int64_t>() = total.zero_columns;
  return {entropy, zero_columns};
}

std::vector<Tensor> saliency_entropy_map_cpu(std::vector<Tensor> list, int64_t num_tasks) {
  const TaskGrads grads = check_task_grads("mtl_ext::saliency_entropy_map", std::move(list), num_tasks);
  const std::vector<Tensor> map = new_map(grads);
  add_entropies(grads, map);
  return map;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) {
  m.impl("saliency_entropy", TORCH_BOX(&saliency_entropy_cpu));
  m.impl("saliency_entropy_map", TORCH_BOX(&saliency_entropy_map_cpu));
}

}  // namespace mtl
