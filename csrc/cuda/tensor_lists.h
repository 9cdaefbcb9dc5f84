// What the glue hands to the launchers of the multi-tensor operators: lists of tensors in plain words, without torch.
#pragma once

#include <cstdint>
#include <vector>

namespace mtl {

enum class Dtype { kFloat64, kFloat32, kBFloat16, kFloat16 };

// R lists of P tensors: data[row * P + p]. A row is a task's gradients, or the outputs. The tensors of one parameter
// have one dtype and are walked in memory order.
struct TensorLists {
  int num_rows = 0;
  int64_t num_params = 0;
  std::vector<const void*> data;  // [R * P], null: absent
  std::vector<int64_t> numel;     // [P], 0: absent in every row
  std::vector<Dtype> dtype;       // [P], meaningless where numel is 0
};

}  // namespace mtl
