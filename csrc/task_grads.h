// What the multi-tensor operators accept, and the words they refuse the rest with: the one C++ validator. Its Python
// twin is mtl_ext/ops/checks.py (same texts; tests compare them).
//
// A task-major list holds K * P tensors, list[k * P + p] being the gradient of task k's loss with respect to parameter
// p. Layout and dtype may differ between parameters, not between tasks. A tensor without elements is an absent
// gradient.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mtl {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
std::string concatenate(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// Throws the parts of a message, joined. (STD_TORCH_CHECK would put this header's path in front of what a user reads.)
#define MTL_CHECK(condition, ...)                                                \
  do {                                                                           \
    if (!(condition)) throw std::runtime_error(::mtl::concatenate(__VA_ARGS__)); \
  } while (false)

// Columns (elements of the parameters, laid end to end) of one unit of parallel work. Fixed, so that partial sums and
// their order do not depend on the number of threads.
constexpr int64_t kChunkColumns = 65536;

inline std::string dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::Long:
      return "torch.int64";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Short:
      return "torch.int16";
    case ScalarType::Char:
      return "torch.int8";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Bool:
      return "torch.bool";
    case ScalarType::ComplexFloat:
      return "torch.complex64";
    case ScalarType::ComplexDouble:
      return "torch.complex128";
    default:
      return "dtype " + std::to_string(static_cast<int>(dtype));
  }
}

inline bool is_supported(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16 ||
         dtype == ScalarType::Half;
}

template <class Values>
std::string list_name(const Values& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

inline std::string device_name(const Tensor& tensor) {
  return tensor.is_cpu() ? "cpu" : "cuda:" + std::to_string(tensor.get_device_index());
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && (a.is_cpu() || a.get_device_index() == b.get_device_index());
}

template <class A, class B>
bool equal(const A& a, const B& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

// Every element has its own address and there are no gaps: walking numel() elements from data_ptr() visits each once.
inline bool is_dense(const Tensor& tensor) {
  if (tensor.is_contiguous()) return true;
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  std::vector<std::pair<int64_t, int64_t>> by_stride;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1) by_stride.emplace_back(strides[d], sizes[d]);
  }
  std::sort(by_stride.begin(), by_stride.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : by_stride) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// Whether the elements of two tensors of equal shape lie in the same order, so that both can be walked in memory order.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  if (a.is_contiguous() && b.is_contiguous()) return true;
  const auto sizes = a.sizes();
  const auto strides_a = a.strides();
  const auto strides_b = b.strides();
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1 && strides_a[d] != strides_b[d]) return false;
  }
  return true;
}

// A validated task-major list in which the present tensors of one parameter share one dense layout.
struct TaskGrads {
  int64_t num_tasks = 0;
  int64_t num_params = 0;
  std::vector<Tensor> tensors;    // [K * P], task-major; owns the copies of gathered tensors
  std::vector<int64_t> numel;     // [P], 0: absent for every task
  std::vector<int64_t> first;     // [P], index in `tensors` of the first task that has this parameter, or -1
  std::vector<ScalarType> dtype;  // [P], meaningless where numel is 0

  const Tensor& at(int64_t task, int64_t param) const { return tensors[task * num_params + param]; }
  bool present(int64_t task, int64_t param) const { return present_[task * num_params + param]; }
  // The tensor's memory, or null for an absent gradient.
  const void* data(int64_t task, int64_t param) const { return data_[task * num_params + param]; }

  std::vector<char> present_;
  std::vector<const void*> data_;
};

inline std::string tensor_name(const char* argument, int64_t index, int64_t num_params) {
  return std::string(argument) + "[" + std::to_string(index) + "] (task " + std::to_string(index / num_params) +
         ", parameter " + std::to_string(index % num_params) + ")";
}

// `source` rewritten with the strides of `layout` (same shape, dense).
inline Tensor gather_like(const Tensor& layout, const Tensor& source) {
  Tensor copy = torch::stable::empty_like(layout);
  torch::stable::copy_(copy, source);
  return copy;
}

inline std::string as_in_first(const TaskGrads& grads, int64_t reference) {
  return " as in grads[" + std::to_string(reference) + "] (task " + std::to_string(reference / grads.num_params) + ")";
}

// Checks one parameter's tensors against its first present one, `reference`. (Texts are made where a check fails: made
// for every tensor they would cost more than the checks.)
inline void check_against_first(const char* op, const TaskGrads& grads, int64_t index, int64_t reference) {
  const Tensor& tensor = grads.tensors[index];
  const Tensor& expected = grads.tensors[reference];
  MTL_CHECK(tensor.scalar_type() == grads.dtype[reference % grads.num_params], op, ": ",
            tensor_name("grads", index, grads.num_params), " has dtype ", dtype_name(tensor.scalar_type()),
            ", expected ", dtype_name(expected.scalar_type()), as_in_first(grads, reference));
  MTL_CHECK(equal(tensor.sizes(), expected.sizes()), op, ": ", tensor_name("grads", index, grads.num_params),
            " has shape ", list_name(tensor.sizes()), ", expected ", list_name(expected.sizes()),
            as_in_first(grads, reference), "; an absent gradient is an empty tensor");
}

inline void check_num_tasks(const char* op, const std::vector<Tensor>& grads, int64_t num_tasks) {
  MTL_CHECK(num_tasks >= 1, op, ": num_tasks is ", num_tasks, ", expected at least 1");
  MTL_CHECK(!grads.empty() && grads.size() % num_tasks == 0, op, ": len(grads) is ", grads.size(),
            ", expected a positive multiple of num_tasks = ", num_tasks, " (task-major: grads[k * P + p])");
}

// Validates the list as it comes.
inline TaskGrads read_list(const char* op, std::vector<Tensor> list, int64_t num_tasks) {
  check_num_tasks(op, list, num_tasks);
  const int64_t length = static_cast<int64_t>(list.size());
  TaskGrads grads;
  grads.num_tasks = num_tasks;
  grads.num_params = length / num_tasks;
  grads.tensors = std::move(list);
  grads.numel.assign(grads.num_params, 0);
  grads.first.assign(grads.num_params, -1);
  grads.dtype.assign(grads.num_params, ScalarType::Float);
  grads.present_.assign(length, 0);
  grads.data_.assign(length, nullptr);
  for (int64_t index = 0; index < length; ++index) {
    const Tensor& tensor = grads.tensors[index];
    const int64_t param = index % grads.num_params;
    MTL_CHECK(same_device(tensor, grads.tensors[0]), op, ": ", tensor_name("grads", index, grads.num_params), " is on ",
              device_name(tensor), ", expected ", device_name(grads.tensors[0]), " as grads[0]");
    const int64_t numel = tensor.numel();
    if (numel == 0) continue;
    grads.present_[index] = 1;
    if (grads.first[param] >= 0) {
      check_against_first(op, grads, index, grads.first[param]);
      continue;
    }
    const ScalarType dtype = tensor.scalar_type();
    MTL_CHECK(is_supported(dtype), op, ": ", tensor_name("grads", index, grads.num_params), " has dtype ",
              dtype_name(dtype), ", expected torch.float64, torch.float32, torch.bfloat16 or torch.float16");
    grads.first[param] = index;
    grads.numel[param] = numel;
    grads.dtype[param] = dtype;
  }
  return grads;
}

// Checks P tensors that go with the gradients of their parameter: same device, dtype and shape.
inline void check_like(const char* op, const char* argument, const std::vector<Tensor>& list, const TaskGrads& grads) {
  MTL_CHECK(static_cast<int64_t>(list.size()) == grads.num_params, op, ": len(", argument, ") is ", list.size(),
            ", expected ", grads.num_params, " = len(grads) / K");
  for (int64_t param = 0; param < grads.num_params; ++param) {
    if (grads.first[param] < 0) continue;
    const Tensor& found = list[param];
    const Tensor& like = grads.tensors[grads.first[param]];
    const int64_t first = grads.first[param];
    MTL_CHECK(same_device(found, like), op, ": ", argument, "[", param, "] is on ", device_name(found), ", expected ",
              device_name(like), " as in grads[", first, "]");
    MTL_CHECK(found.scalar_type() == grads.dtype[param], op, ": ", argument, "[", param, "] has dtype ",
              dtype_name(found.scalar_type()), ", expected ", dtype_name(like.scalar_type()), " as in grads[", first,
              "]");
    MTL_CHECK(equal(found.sizes(), like.sizes()), op, ": ", argument, "[", param, "] has shape ",
              list_name(found.sizes()), ", expected ", list_name(like.sizes()), " as in grads[", first, "]");
  }
}

// Checks the outputs of an in-place operator: P dense tensors like the gradients of their parameter.
inline void check_out(const char* op, const std::vector<Tensor>& out, const TaskGrads& grads) {
  check_like(op, "out", out, grads);
  for (int64_t param = 0; param < grads.num_params; ++param) {
    MTL_CHECK(grads.first[param] < 0 || is_dense(out[param]), op, ": out[", param, "] has strides ",
              list_name(out[param].strides()), ", expected a dense tensor to write into: pass out[p].contiguous()");
  }
}

// Whether one parameter's tensors can all be walked in memory order together.
inline bool share_layout(const TaskGrads& grads, int64_t param) {
  const Tensor& first = grads.tensors[grads.first[param]];
  const bool contiguous = first.is_contiguous();
  if (!contiguous && !is_dense(first)) return false;
  for (int64_t k = 0; k < grads.num_tasks; ++k) {
    if (!grads.present(k, param) || (contiguous && grads.at(k, param).is_contiguous())) continue;
    if (!same_layout(grads.at(k, param), first)) return false;
  }
  return true;
}

// Gathers what cannot be walked in memory order, and takes the pointers.
inline void lay_out(TaskGrads& grads, const std::vector<Tensor>* out) {
  for (int64_t param = 0; param < grads.num_params; ++param) {
    if (grads.first[param] < 0) continue;
    const bool shared = out == nullptr && share_layout(grads, param);
    for (int64_t k = 0; k < grads.num_tasks; ++k) {
      if (!grads.present(k, param)) continue;
      Tensor& tensor = grads.tensors[k * grads.num_params + param];
      if (out != nullptr) {
        if (!same_layout(tensor, (*out)[param])) tensor = gather_like((*out)[param], tensor);
      } else if (!shared) {
        tensor = torch::stable::contiguous(tensor);
      }
      grads.data_[k * grads.num_params + param] = tensor.data_ptr();
    }
  }
}

// The validated list. With `out`, the outputs are validated too and prescribe each parameter's layout; without, the
// present tensors' own layout counts where they agree on a dense one, and contiguous elsewhere.
inline TaskGrads check_task_grads(const char* op, std::vector<Tensor> list, int64_t num_tasks,
                                  const std::vector<Tensor>* out = nullptr) {
  TaskGrads grads = read_list(op, std::move(list), num_tasks);
  if (out != nullptr) check_out(op, *out, grads);
  lay_out(grads, out);
  return grads;
}

// Bytes of one task's gradients.
inline int64_t num_bytes(const TaskGrads& grads) {
  int64_t total = 0;
  for (int64_t param = 0; param < grads.num_params; ++param) {
    if (grads.numel[param] > 0) total += grads.numel[param] * grads.tensors[grads.first[param]].element_size();
  }
  return total;
}

// New tensors for a result, in the layout of each parameter's gradients.
inline std::vector<Tensor> new_outputs(const TaskGrads& grads) {
  std::vector<Tensor> out;
  for (int64_t param = 0; param < grads.num_params; ++param) {
    out.push_back(torch::stable::empty_like(grads.tensors[grads.first[param] < 0 ? param : grads.first[param]]));
  }
  return out;
}

// Checks dtype and device of a small argument beside a gradient list.
inline void check_vector(const char* op, const char* name, const Tensor& vector, ScalarType dtype,
                         const std::vector<Tensor>& grads) {
  MTL_CHECK(vector.scalar_type() == dtype, op, ": ", name, " has dtype ", dtype_name(vector.scalar_type()),
            ", expected ", dtype_name(dtype));
  MTL_CHECK(grads.empty() || same_device(vector, grads[0]), op, ": ", name, " is on ", device_name(vector),
            ", expected ", device_name(grads[0]), " as grads[0]");
}

// Checks the task weights, [K] or a row per parameter [P, K], and returns K.
inline int64_t check_weights(const char* op, const Tensor& weights, const std::vector<Tensor>& grads) {
  const auto sizes = weights.sizes();
  MTL_CHECK((sizes.size() == 1 || sizes.size() == 2) && sizes.back() >= 1, op, ": weights has shape ", list_name(sizes),
            ", expected [K] or [P, K] with K at least 1");
  MTL_CHECK(sizes.size() == 1 || weights.numel() == static_cast<int64_t>(grads.size()), op, ": weights has shape ",
            list_name(sizes), ", expected [K], or [P, K] with P = len(grads) / K where len(grads) is ", grads.size());
  check_vector(op, "weights", weights, ScalarType::Double, grads);
  return sizes.back();
}

// Checks the group of each parameter and returns the number of groups.
inline int64_t check_groups(const char* op, const std::vector<int64_t>& groups, int64_t num_params) {
  MTL_CHECK(static_cast<int64_t>(groups.size()) == num_params, op, ": len(groups) is ", groups.size(), ", expected ",
            num_params, " = len(grads) / K");
  for (int64_t param = 0; param < num_params; ++param) {
    MTL_CHECK(groups[param] >= 0 && groups[param] < num_params, op, ": groups[", param, "] is ", groups[param],
              ", expected 0 to ", num_params - 1, " (at most a group for each parameter)");
  }
  return 1 + *std::max_element(groups.begin(), groups.end());
}

// What gram returns, empty yet: [K, K], or [G, K, K] of G > 0 groups.
inline Tensor new_gram(const TaskGrads& grads, int64_t num_groups) {
  std::vector<int64_t> shape = {grads.num_tasks, grads.num_tasks};
  if (num_groups > 0) shape.insert(shape.begin(), num_groups);
  return torch::stable::new_empty(grads.tensors[0], shape, ScalarType::Double);
}

}  // namespace mtl
