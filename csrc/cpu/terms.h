// The gradients of a parameter that count in a sum over the tasks, each with a factor of its own.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mtl {

struct Terms {
  std::span<const void* const> data;
  std::span<const double> factor;
};

// The terms of all parameters in two blocks of memory: a list of many small tensors would spend its time on allocation.
class TermLists {
 public:
  explicit TermLists(int64_t capacity) {
    data_.reserve(capacity);
    factors_.reserve(capacity);
  }

  // One more term of the current parameter; in all at most `capacity`.
  void add(const void* data, double factor) {
    data_.push_back(data);
    factors_.push_back(factor);
  }

  // Ends the current parameter.
  Terms end() {
    const size_t begin = begin_, size = data_.size() - begin;
    begin_ = data_.size();
    return {{data_.data() + begin, size}, {factors_.data() + begin, size}};
  }

 private:
  std::vector<const void*> data_;
  std::vector<double> factors_;
  size_t begin_ = 0;
};

}  // namespace mtl
