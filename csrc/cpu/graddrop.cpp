// GradDrop: purity, mask and masked sum in one pass over memory. A strip's sums stay in registers while the tasks are
// read, the draw decides each column, and the second look at the strip finds it in the first-level cache. Sums run in
// task order in float32 (float64 for float64), one rounding at the end. An output may be the very memory of a gradient:
// every strip is read whole before it is written.
#include "common/graddrop.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "common/dtypes.h"
#include "cpu/draws.h"
#include "cpu/param_ranges.h"
#include "cpu/terms.h"
#include "cpu/vector.h"
#include "graddrop_arguments.h"

namespace mtl {
namespace {

// Vectors of a strip: long enough runs of every row for the hardware to follow.
constexpr int kStrip = 8;

template <class T>
constexpr int kStripColumns = kStrip * kLanes<Wide<T>>;

template <class W, class T>
MTL_INLINE void load_strip(const T* source, Vector<W>* strip) {
  if constexpr (std::is_same_v<T, W>) {
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) strip[s] = load(source + s * kLanes<W>);
  } else {
    W values[kStrip * kLanes<W>];
    for (int i = 0; i < kStrip * kLanes<W>; ++i) values[i] = widen(source[i]);
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) strip[s] = load(values + s * kLanes<W>);
  }
}

template <class W, class T>
MTL_INLINE void store_strip(T* target, const Vector<W>* strip, bool past_caches) {
  if constexpr (std::is_same_v<T, W>) {
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) {
      if (past_caches) {
        stream(target + s * kLanes<W>, strip[s]);
      } else {
        store(target + s * kLanes<W>, strip[s]);
      }
    }
  } else {
    W values[kStrip * kLanes<W>];
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) store(values + s * kLanes<W>, strip[s]);
    for (int i = 0; i < kStrip * kLanes<W>; ++i) target[i] = narrow<T>(values[i]);
  }
}

template <class W>
MTL_INLINE Vector<W> magnitude_of(Vector<W> value) {
  using Bits = decltype(value < value);
  const Vector<W> sign_bit = -Vector<W>{};
  return reinterpret_cast<Vector<W>>(reinterpret_cast<Bits>(value) & ~reinterpret_cast<Bits>(sign_bit));
}

// passing_sign for a vector of columns.
template <bool kSigmoid, class W>
MTL_INLINE Vector<W> passing_signs(Vector<W> sum, Vector<W> magnitude, Vector<W> uniform, W kappa) {
  const Vector<W> threshold = 2 * uniform - 1;
  Vector<W> score = kappa * sum, bound = threshold * magnitude;
  if constexpr (kSigmoid) {
    const Vector<W> argument = kappa * (sum / magnitude);
    for (int lane = 0; lane < kLanes<W>; ++lane) score[lane] = std::tanh(argument[lane]);
    bound = threshold;
  }
  const Vector<W> zero = {}, one = zero + 1;
  return score > bound ? one : score < bound ? -one : zero;
}

template <bool kLeaks, bool kSigmoid, class T>
MTL_INLINE void drop_strip(const Terms& terms, const DropRule& rule, const float* uniform, int64_t c, bool past_caches,
                           T* out) {
  using W = Wide<T>;
  const size_t count = terms.data.size();
  Vector<W> value[kStrip], sum[kStrip] = {}, magnitude[kStrip] = {};
  for (size_t k = 0; k < count; ++k) {
    load_strip<W>(static_cast<const T*>(terms.data[k]) + c, value);
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) {
      sum[s] += value[s];
      magnitude[s] += magnitude_of<W>(value[s]);
    }
  }
  Vector<W> sign[kStrip], total[kStrip] = {};
  load_strip<W>(uniform, value);
#pragma GCC unroll 8
  for (int s = 0; s < kStrip; ++s) {
    sign[s] = passing_signs<kSigmoid>(sum[s], magnitude[s], value[s], static_cast<W>(rule.kappa));
  }
  const Vector<W> zero = {}, one = zero + 1;
  for (size_t k = 0; k < count; ++k) {
    load_strip<W>(static_cast<const T*>(terms.data[k]) + c, value);
    const Vector<W> leak = zero + static_cast<W>(terms.factor[k]);
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) {
      const Vector<W> signed_value = value[s] * sign[s];
      if constexpr (kLeaks) {
        total[s] += (signed_value > zero ? one : leak) * value[s];
      } else {
        // The sum of what passes, its sign taken off; NaN, also 0 times infinity, stays.
        total[s] += zero > signed_value ? zero : signed_value;
      }
    }
  }
#pragma GCC unroll 8
  for (int s = 0; s < kStrip; ++s) {
    if constexpr (!kLeaks) total[s] = total[s] * sign[s] + zero;  // -0 becomes 0
  }
  if (rule.accumulate) {
    load_strip<W>(out + c, value);
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) total[s] += value[s];
  }
  store_strip<W>(out + c, total, past_caches);
}

template <class T>
MTL_INLINE void drop_one(const Terms& terms, const DropRule& rule, float uniform, int64_t c, T* out) {
  using W = Wide<T>;
  const size_t count = terms.data.size();
  W sum = 0, magnitude = 0, total = 0;
  for (size_t k = 0; k < count; ++k) {
    const W value = widen(static_cast<const T*>(terms.data[k])[c]);
    sum += value;
    magnitude += std::abs(value);
  }
  const W sign = passing_sign(sum, magnitude, uniform, rule.sigmoid, static_cast<W>(rule.kappa));
  for (size_t k = 0; k < count; ++k) {
    const W value = widen(static_cast<const T*>(terms.data[k])[c]);
    total += (value * sign > 0 ? W(1) : static_cast<W>(terms.factor[k])) * value;
  }
  out[c] = narrow<T>(rule.accumulate ? total + widen(out[c]) : total);
}

// Columns begin..end of a parameter; uniform[0] belongs to `begin`.
template <bool kLeaks, bool kSigmoid, class T>
MTL_INLINE void drop_columns(const Terms& terms, const DropRule& rule, const float* uniform, int64_t begin, int64_t end,
                             bool past_caches, T* out) {
  past_caches = past_caches && can_stream(out + begin);
  int64_t c = begin;
  for (; c + kStripColumns<T> <= end; c += kStripColumns<T>) {
    drop_strip<kLeaks, kSigmoid>(terms, rule, uniform + (c - begin), c, past_caches, out);
  }
  for (; c < end; ++c) drop_one(terms, rule, uniform[c - begin], c, out);
}

// The common rule has loops of its own: the others would cost it registers.
template <class T>
MTL_INLINE void drop_by_rule(const Terms& terms, const DropRule& rule, const float* uniform, int64_t begin, int64_t end,
                             bool past_caches, T* out) {
  if (rule.sigmoid) {
    drop_columns<true, true>(terms, rule, uniform, begin, end, past_caches, out);
  } else if (rule.leak != nullptr) {
    drop_columns<true, false>(terms, rule, uniform, begin, end, past_caches, out);
  } else {
    drop_columns<false, false>(terms, rule, uniform, begin, end, past_caches, out);
  }
}

MTL_CLONES void drop_range(const Terms& terms, const DropRule& rule, ScalarType dtype, const float* uniform,
                           int64_t begin, int64_t end, bool past_caches, void* out) {
  switch (dtype) {
    case ScalarType::Double:
      return drop_by_rule(terms, rule, uniform, begin, end, past_caches, static_cast<double*>(out));
    case ScalarType::Float:
      return drop_by_rule(terms, rule, uniform, begin, end, past_caches, static_cast<float*>(out));
    case ScalarType::BFloat16:
      return drop_by_rule(terms, rule, uniform, begin, end, past_caches, static_cast<bfloat16*>(out));
    default:
      return drop_by_rule(terms, rule, uniform, begin, end, past_caches, static_cast<float16*>(out));
  }
}

void write_graddrop(const DropArguments& arguments, bool sigmoid, double kappa, bool accumulate) {
  const TaskGrads& grads = arguments.grads;
  const DropRule rule{arguments.seed_data(), arguments.leak_data(), sigmoid, kappa, accumulate};
  TermLists lists(grads.num_tasks * grads.num_params);  // the factors are leaks
  std::vector<Terms> terms(grads.num_params);
  std::vector<void*> target(grads.num_params, nullptr);
  std::vector<const float*> uniform(grads.num_params, nullptr);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    if (grads.numel[param] == 0) continue;
    for (int64_t k = 0; k < grads.num_tasks; ++k) {
      if (!grads.present(k, param)) continue;
      lists.add(grads.data(k, param), rule.leak == nullptr ? 0 : rule.leak[k]);
    }
    terms[param] = lists.end();
    target[param] = arguments.out[param].mutable_data_ptr();
    if (rule.seed == nullptr) uniform[param] = arguments.uniform[param].const_data_ptr<float>();
  }
  const bool past_caches = !accumulate && num_bytes(grads) > kStreamBytes;
  for_each_range(grads.numel, [&](int64_t param, int64_t begin, int64_t end) {
    for_each_drawn(rule.seed, uniform[param], param, begin, end, [&](int64_t first, int64_t last, const float* draws) {
      drop_range(terms[param], rule, grads.dtype[param], draws, first, last, past_caches, target[param]);
    });
    if (past_caches) end_stream();
  });
}

std::vector<Tensor> graddrop_cpu(std::vector<Tensor> list, int64_t num_tasks, std::optional<Tensor> seed,
                                 std::vector<Tensor> uniform, std::optional<Tensor> leak, bool sigmoid, double kappa) {
  const DropArguments arguments =
      check_graddrop("mtl_ext::graddrop", nullptr, std::move(list), num_tasks, seed, uniform, leak);
  write_graddrop(arguments, sigmoid, kappa, /*accumulate=*/false);
  return arguments.out;
}

void graddrop_into_cpu(std::vector<Tensor> out, std::vector<Tensor> list, int64_t num_tasks, std::optional<Tensor> seed,
                       std::vector<Tensor> uniform, std::optional<Tensor> leak, bool sigmoid, double kappa,
                       bool accumulate) {
  write_graddrop(check_graddrop("mtl_ext::graddrop_", &out, std::move(list), num_tasks, seed, uniform, leak), sigmoid,
                 kappa, accumulate);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) {
  m.impl("graddrop", TORCH_BOX(&graddrop_cpu));
  m.impl("graddrop_", TORCH_BOX(&graddrop_into_cpu));
}

}  // namespace mtl
