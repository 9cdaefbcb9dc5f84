// Weighted sum of the per-task gradients: one pass over memory, strips of the sums kept in registers, tasks added in
// order in float32 (float64 for float64), one rounding at the end. Large results are stored past the caches. Tasks of
// weight 0 are not read. An output may be the very memory of a gradient: every strip is read whole before it is
// written.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "common/dtypes.h"
#include "cpu/param_ranges.h"
#include "cpu/terms.h"
#include "cpu/vector.h"
#include "task_grads.h"

namespace mtl {
namespace {

template <class T>
MTL_INLINE void combine_one(const Terms& terms, bool accumulate, int64_t i, T* out) {
  Wide<T> sum = 0;
  for (size_t k = 0; k < terms.data.size(); ++k) {
    sum += static_cast<Wide<T>>(terms.factor[k]) * widen(static_cast<const T*>(terms.data[k])[i]);
  }
  out[i] = narrow<T>(accumulate ? widen(out[i]) + sum : sum);
}

// More rows than the hardware follows as streams are read one after another, a run of each at a time.
constexpr size_t kManyRows = 8;
constexpr int64_t kRun = 1024;

// Stores sums[0..n) to out, past the caches or not; n is a multiple of the lanes.
template <class T>
MTL_INLINE void store_run(const T* sums, int64_t n, bool past_caches, T* out) {
  for (int64_t i = 0; i < n; i += kLanes<T>) {
    if (past_caches) {
      stream(out + i, load(sums + i));
    } else {
      store(out + i, load(sums + i));
    }
  }
}

// Columns c.. of a parameter by runs whose sums stay in the first-level cache; returns where the last whole one ends.
template <class T>
MTL_INLINE int64_t combine_runs(const Terms& terms, bool accumulate, bool past_caches, int64_t c, int64_t end, T* out) {
  alignas(64) T sums[kRun];
  for (; c + kRun <= end; c += kRun) {
    for (int64_t i = 0; i < kRun; ++i) sums[i] = 0;
    for (size_t k = 0; k < terms.data.size(); ++k) {
      const T* source = static_cast<const T*>(terms.data[k]) + c;
      const T weight = static_cast<T>(terms.factor[k]);
      for (int64_t i = 0; i < kRun; i += kLanes<T>) {
        if (i * sizeof(T) % 64 == 0) __builtin_prefetch(source + kRun + i, 0, 2);
        store(sums + i, load(sums + i) + weight * load(source + i));
      }
    }
    for (int64_t i = 0; accumulate && i < kRun; i += kLanes<T>) store(sums + i, load(sums + i) + load(out + c + i));
    store_run(sums, kRun, past_caches, out + c);
  }
  return c;
}

// Columns begin..end of a parameter whose elements have the arithmetic's own type.
template <class T>
MTL_INLINE void combine_wide(const Terms& terms, bool accumulate, bool past_caches, int64_t begin, int64_t end,
                             T* out) {
  constexpr int kStrip = 4;
  const size_t count = terms.data.size();
  int64_t c = begin;
  for (; past_caches && c < end && !can_stream(out + c); ++c) combine_one(terms, accumulate, c, out);
  if (count > kManyRows) c = combine_runs(terms, accumulate, past_caches, c, end, out);
  for (; c + kStrip * kLanes<T> <= end; c += kStrip * kLanes<T>) {
    Vector<T> sum[kStrip] = {};
    for (size_t k = 0; k < count; ++k) {
      const T* source = static_cast<const T*>(terms.data[k]) + c;
      const T weight = static_cast<T>(terms.factor[k]);
#pragma GCC unroll 4
      for (int s = 0; s < kStrip; ++s) sum[s] += weight * load(source + s * kLanes<T>);
    }
#pragma GCC unroll 4
    for (int s = 0; s < kStrip; ++s) {
      T* target = out + c + s * kLanes<T>;
      if (accumulate) sum[s] += load(target);
      if (past_caches) {
        stream(target, sum[s]);
      } else {
        store(target, sum[s]);
      }
    }
  }
  for (; c < end; ++c) combine_one(terms, accumulate, c, out);
  if (past_caches) end_stream();
}

// The same for half types: float sums of a strip that stays in the first-level cache.
template <class T>
MTL_INLINE void combine_half(const Terms& terms, bool accumulate, int64_t begin, int64_t end, T* out) {
  constexpr int64_t kStrip = 512;
  float sum[kStrip];
  for (int64_t c = begin; c < end; c += kStrip) {
    const int64_t length = std::min(kStrip, end - c);
    for (int64_t i = 0; i < length; ++i) sum[i] = 0;
    for (size_t k = 0; k < terms.data.size(); ++k) {
      const T* source = static_cast<const T*>(terms.data[k]) + c;
      const float weight = static_cast<float>(terms.factor[k]);
      for (int64_t i = 0; i < length; ++i) sum[i] += weight * widen(source[i]);
    }
    if (accumulate) {
      for (int64_t i = 0; i < length; ++i) sum[i] += widen(out[c + i]);
    }
    for (int64_t i = 0; i < length; ++i) out[c + i] = narrow<T>(sum[i]);
  }
}

MTL_CLONES void combine_range(const Terms& terms, ScalarType dtype, bool accumulate, bool past_caches, int64_t begin,
                              int64_t end, void* out) {
  switch (dtype) {
    case ScalarType::Double:
      return combine_wide(terms, accumulate, past_caches, begin, end, static_cast<double*>(out));
    case ScalarType::Float:
      return combine_wide(terms, accumulate, past_caches, begin, end, static_cast<float*>(out));
    case ScalarType::BFloat16:
      return combine_half(terms, accumulate, begin, end, static_cast<bfloat16*>(out));
    default:
      return combine_half(terms, accumulate, begin, end, static_cast<float16*>(out));
  }
}

void write_combined(const TaskGrads& grads, const Tensor& weights, bool accumulate, const std::vector<Tensor>& out) {
  const Tensor values = torch::stable::contiguous(weights);
  const int64_t weight_stride = weights.dim() == 1 ? 0 : grads.num_tasks;
  TermLists lists(grads.num_tasks * grads.num_params);
  std::vector<Terms> terms(grads.num_params);
  std::vector<void*> target(grads.num_params, nullptr);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    const double* weight = values.const_data_ptr<double>() + param * weight_stride;
    for (int64_t k = 0; k < grads.num_tasks; ++k) {
      if (!grads.present(k, param) || weight[k] == 0) continue;
      lists.add(grads.data(k, param), weight[k]);
    }
    terms[param] = lists.end();
    if (grads.numel[param] > 0) target[param] = out[param].mutable_data_ptr();
  }
  // What is added to has been read: its lines are in the caches already.
  const bool past_caches = !accumulate && num_bytes(grads) > kStreamBytes;
  for_each_range(grads.numel, [&](int64_t param, int64_t begin, int64_t end) {
    combine_range(terms[param], grads.dtype[param], accumulate, past_caches, begin, end, target[param]);
  });
}

std::vector<Tensor> combine_cpu(std::vector<Tensor> list, Tensor weights) {
  const char* op = "mtl_ext::combine";
  const int64_t num_tasks = check_weights(op, weights, list);
  const TaskGrads grads = check_task_grads(op, std::move(list), num_tasks);
  const std::vector<Tensor> out = new_outputs(grads);
  write_combined(grads, weights, /*accumulate=*/false, out);
  return out;
}

void combine_into_cpu(std::vector<Tensor> out, std::vector<Tensor> list, Tensor weights, bool accumulate) {
  const char* op = "mtl_ext::combine_";
  const int64_t num_tasks = check_weights(op, weights, list);
  write_combined(check_task_grads(op, std::move(list), num_tasks, &out), weights, accumulate, out);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mtl_ext, CPU, m) {
  m.impl("combine", TORCH_BOX(&combine_cpu));
  m.impl("combine_", TORCH_BOX(&combine_into_cpu));
}

}  // namespace mtl
