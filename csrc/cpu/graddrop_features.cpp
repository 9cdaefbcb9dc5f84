// GradDrop of feature gradients [B, positions]: a strip of positions at a time, so that the second look at its B
// samples finds them in the cache. First the marginal gradients, sums over the batch of the gradients with the
// features' signs; they decide which tasks pass at each position; then the masked sum of every sample, tasks in order,
// one rounding. Arithmetic is float32 (float64 for float64).
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "common/dtypes.h"
#include "common/graddrop.h"
#include "cpu/draws.h"
#include "cpu/param_ranges.h"
#include "cpu/vector.h"
#include "graddrop_arguments.h"

namespace mtl {
namespace {

// One feature tensor with its present gradients.
struct Terms {
  std::vector<const void*> data;
  std::vector<double> leak;
  const void* feature = nullptr;
  void* out = nullptr;
  const float* uniform = nullptr;
  int64_t batch = 0;
  int64_t positions = 0;
};

// sums[i] += sign(feature[i]) * grad[i]
template <class T>
MTL_INLINE void add_signed(const T* feature, const T* grad, int64_t count, Wide<T>* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += sign_of(widen(feature[i])) * widen(grad[i]);
}

// marginals [tasks, kDrawn] of positions begin .. begin + count; `slice` is as large.
template <class T>
MTL_INLINE void sum_batch(const Terms& terms, int64_t begin, int64_t count, Wide<T>* marginals, Wide<T>* slice) {
  const int64_t size = static_cast<int64_t>(terms.data.size()) * kDrawn;
  std::fill_n(marginals, size, Wide<T>(0));
  for (int64_t first = 0; first < std::min<int64_t>(kBatchSlices, terms.batch); ++first) {
    std::fill_n(slice, size, Wide<T>(0));
    for (int64_t b = first; b < terms.batch; b += kBatchSlices) {
      const int64_t offset = b * terms.positions + begin;
      for (size_t k = 0; k < terms.data.size(); ++k) {
        add_signed(static_cast<const T*>(terms.feature) + offset, static_cast<const T*>(terms.data[k]) + offset, count,
                   slice + k * kDrawn);
      }
    }
    for (int64_t i = 0; i < size; ++i) marginals[i] += slice[i];
  }
}

// Replaces the marginal gradients by the factors of their tasks: 1 where the task passes, else its leak.
template <class W>
MTL_INLINE void decide(const Terms& terms, const DropRule& rule, const float* draws, int64_t count, W* marginals) {
  for (int64_t i = 0; i < count; ++i) {
    W sum = 0, magnitude = 0;
    for (size_t k = 0; k < terms.data.size(); ++k) {
      sum += marginals[k * kDrawn + i];
      magnitude += std::abs(marginals[k * kDrawn + i]);
    }
    const W sign = passing_sign(sum, magnitude, draws[i], rule.sigmoid, static_cast<W>(rule.kappa));
    for (size_t k = 0; k < terms.data.size(); ++k) {
      W& marginal = marginals[k * kDrawn + i];
      marginal = marginal * sign > 0 ? W(1) : static_cast<W>(terms.leak[k]);
    }
  }
}

template <class T>
MTL_INLINE void write_samples(const Terms& terms, int64_t begin, int64_t count, const Wide<T>* factors,
                              Wide<T>* total) {
  for (int64_t b = 0; b < terms.batch; ++b) {
    const int64_t offset = b * terms.positions + begin;
    std::fill_n(total, count, Wide<T>(0));
    for (size_t k = 0; k < terms.data.size(); ++k) {
      const T* grad = static_cast<const T*>(terms.data[k]) + offset;
      const Wide<T>* factor = factors + k * kDrawn;
      for (int64_t i = 0; i < count; ++i) total[i] += factor[i] * widen(grad[i]);
    }
    T* out = static_cast<T*>(terms.out) + offset;
    for (int64_t i = 0; i < count; ++i) out[i] = narrow<T>(total[i]);
  }
}

// scratch: 2 * tasks * kDrawn doubles.
template <class T>
MTL_INLINE void drop_strip(const Terms& terms, const DropRule& rule, const float* draws, int64_t begin, int64_t count,
                           double* scratch) {
  Wide<T>* marginals = reinterpret_cast<Wide<T>*>(scratch);
  Wide<T>* slice = marginals + terms.data.size() * kDrawn;
  sum_batch<T>(terms, begin, count, marginals, slice);
  decide<Wide<T>>(terms, rule, draws, count, marginals);
  write_samples<T>(terms, begin, count, marginals, slice);
}

MTL_CLONES void drop_positions(const Terms& terms, const DropRule& rule, ScalarType dtype, const float* draws,
                               int64_t begin, int64_t count, double* scratch) {
  switch (dtype) {
    case ScalarType::Double:
      return drop_strip<double>(terms, rule, draws, begin, count, scratch);
    case ScalarType::Float:
      return drop_strip<float>(terms, rule, draws, begin, count, scratch);
    case ScalarType::BFloat16:
      return drop_strip<bfloat16>(terms, rule, draws, begin, count, scratch);
    default:
      return drop_strip<float16>(terms, rule, draws, begin, count, scratch);
  }
}

std::vector<Terms> terms_of(const DropArguments& arguments) {
  const TaskGrads& grads = arguments.grads;
  const double* leak = arguments.leak_data();
  std::vector<Terms> all(grads.num_params);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    if (grads.numel[param] == 0) continue;
    Terms& terms = all[param];
    for (int64_t k = 0; k < grads.num_tasks; ++k) {
      if (!grads.present(k, param)) continue;
      terms.data.push_back(grads.data(k, param));
      terms.leak.push_back(leak == nullptr ? 0 : leak[k]);
    }
    terms.feature = arguments.features[param].data_ptr();
    terms.out = arguments.out[param].mutable_data_ptr();
    if (!arguments.seed) terms.uniform = arguments.uniform[param].const_data_ptr<float>();
    terms.batch = arguments.features[param].size(0);
    terms.positions = grads.numel[param] / terms.batch;
  }
  return all;
}

std::vector<Tensor> graddrop_features_cpu(std::vector<Tensor> list, int64_t num_tasks, std::vector<Tensor> features,
                                          std::optional<Tensor> seed, std::vector<Tensor> uniform,
                                          std::optional<Tensor> leak, bool sigmoid, double kappa) {
  const DropArguments arguments = check_graddrop_features("mtl_ext::graddrop_features", std::move(list), num_tasks,
                                                          std::move(features), seed, uniform, leak);
  const DropRule rule{arguments.seed_data(), nullptr, sigmoid, kappa, /*accumulate=*/false};
  const std::vector<Terms> all = terms_of(arguments);
  std::vector<int64_t> positions;
  int64_t batch = 1;
  for (const Terms& terms : all) {
    positions.push_back(terms.positions);
    batch = std::max(batch, terms.batch);
  }
  const auto drop = [&](int64_t param, int64_t begin, int64_t end) {
    const Terms& terms = all[param];
    const AlignedBuffer<double> scratch(2 * terms.data.size() * kDrawn);
    for_each_drawn(rule.seed, terms.uniform, param, begin, end, [&](int64_t first, int64_t last, const float* draws) {
      drop_positions(terms, rule, arguments.grads.dtype[param], draws, first, last - first, scratch.get());
    });
  };
  for_each_range(positions, drop, std::max(kDrawn, kChunkColumns / batch));
  return arguments.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) { m.impl("graddrop_features", TORCH_BOX(&graddrop_features_cpu)); }

}  // namespace mtl
