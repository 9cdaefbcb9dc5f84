// gradvac's arguments, checked, with its results: the same for every device.
#pragma once

#include "common/kxk/gradvac.h"
#include "gram_arguments.h"

namespace mtl {

struct GradvacArguments {
  Tensor gram, order, target;  // contiguous
  Tensor weights, new_target;  // empty yet
  double beta;

  GradvacArguments(const char* op, const Tensor& gram_, const Tensor& order_, const Tensor& target_, double beta_)
      : beta(beta_) {
    check_gram(op, gram_, /*batched=*/true);
    check_order(op, order_, gram_);
    check_like_gram(op, "target", target_, gram_);
    gram = torch::stable::contiguous(gram_);
    order = torch::stable::contiguous(order_);
    target = torch::stable::contiguous(target_);
    weights = std::get<0>(solver_results(gram));
    new_target = torch::stable::empty_like(target);
  }

  GradvacBatch batch() const {
    const int64_t num_tasks = gram.sizes().back();
    return {gram.numel() / (num_tasks * num_tasks),
            static_cast<int>(num_tasks),
            gram.const_data_ptr<double>(),
            order.const_data_ptr<int64_t>(),
            order.dim() == 2 ? 0 : num_tasks * (num_tasks - 1),
            target.const_data_ptr<double>(),
            beta,
            weights.mutable_data_ptr<double>(),
            new_target.mutable_data_ptr<double>()};
  }
};

}  // namespace mtl
