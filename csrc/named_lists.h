// Checks of lists that stand side by side under their own names, as parameters and a direction do: the twin of
// mtl_ext/ops/named_lists.py.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "task_grads.h"

namespace mtl {

struct NamedList {
  const char* name;
  const std::vector<Tensor>* tensors;

  const Tensor& operator[](int64_t param) const { return (*tensors)[param]; }
  std::string entry(int64_t param) const { return concatenate(name, "[", param, "]"); }
};

using NamedLists = std::vector<NamedList>;

inline void check_like(const char* op, const NamedList& list, const NamedList& like, int64_t param) {
  const Tensor& found = list[param];
  const Tensor& expected = like[param];
  MTL_CHECK(found.scalar_type() == expected.scalar_type(), op, ": ", list.entry(param), " has dtype ",
            dtype_name(found.scalar_type()), ", expected ", dtype_name(expected.scalar_type()), " as ",
            like.entry(param));
  MTL_CHECK(equal(found.sizes(), expected.sizes()), op, ": ", list.entry(param), " has shape ",
            list_name(found.sizes()), ", expected ", list_name(expected.sizes()), " as ", like.entry(param));
}

// All outputs of a parameter are walked together, in memory order.
inline void check_layouts(const char* op, const NamedLists& writes, int64_t param) {
  for (const NamedList& list : writes) {
    MTL_CHECK(is_dense(list[param]), op, ": ", list.entry(param), " has strides ", list_name(list[param].strides()),
              ", expected a dense tensor to write into: pass ", list.name, "[p].contiguous()");
    MTL_CHECK(same_layout(list[param], writes[0][param]), op, ": ", list.entry(param), " has strides ",
              list_name(list[param].strides()), ", expected ", list_name(writes[0][param].strides()), " as ",
              writes[0].entry(param));
  }
}

// What one parameter has in all lists.
inline void check_entries(const char* op, const NamedLists& reads, const NamedLists& writes, int64_t param) {
  for (const NamedLists* lists : {&reads, &writes}) {
    for (const NamedList& list : *lists) {
      MTL_CHECK(same_device(list[param], reads[0][0]), op, ": ", list.entry(param), " is on ", device_name(list[param]),
                ", expected ", device_name(reads[0][0]), " as ", reads[0].entry(0));
    }
  }
  const auto like =
      std::find_if(reads.begin(), reads.end(), [&](const NamedList& list) { return list[param].numel() > 0; });
  if (like == reads.end()) return;
  MTL_CHECK(is_supported((*like)[param].scalar_type()), op, ": ", like->entry(param), " has dtype ",
            dtype_name((*like)[param].scalar_type()),
            ", expected torch.float64, torch.float32, torch.bfloat16 or torch.float16");
  for (const NamedList& list : reads) {
    if (list[param].numel() > 0) check_like(op, list, *like, param);
  }
  for (const NamedList& list : writes) check_like(op, list, *like, param);
  check_layouts(op, writes, param);
}

// The lists of `reads` as the rows of one list. Tensors of `writes` prescribe the layout of their parameter, if any.
inline TaskGrads check_named_lists(const char* op, const NamedLists& reads, const NamedLists& writes) {
  const size_t num_params = reads[0].tensors->size();
  std::vector<Tensor> rows;
  for (const NamedLists* lists : {&reads, &writes}) {
    for (const NamedList& list : *lists) {
      MTL_CHECK(list.tensors->size() == num_params, op, ": len(", list.name, ") is ", list.tensors->size(),
                ", expected ", num_params, " = len(", reads[0].name, ")");
    }
  }
  for (size_t param = 0; param < num_params; ++param) check_entries(op, reads, writes, param);
  for (const NamedList& list : reads) rows.insert(rows.end(), list.tensors->begin(), list.tensors->end());
  TaskGrads grads = read_list(op, std::move(rows), static_cast<int64_t>(reads.size()));
  lay_out(grads, writes.empty() ? nullptr : writes[0].tensors);
  return grads;
}

}  // namespace mtl
