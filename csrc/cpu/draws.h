// The uniform numbers of a range of elements, drawn in strips or taken from the caller's tensor.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/philox.h"

namespace mtl {

// Elements that are drawn together.
constexpr int64_t kDrawn = 512;

// Calls visit(begin, end, draws) for strips of elements begin .. end of a tensor, draws[0] belonging to the strip's
// first. seed: [2], or null: `uniform` holds a number for every element.
template <class Visit>
void for_each_drawn(const int64_t* seed, const float* uniform, int64_t tensor, int64_t begin, int64_t end,
                    const Visit& visit) {
  static const auto fill_uniform = choose_fill_uniform();
  float drawn[kDrawn];
  for (int64_t c = begin; c < end;) {
    const int64_t first = c / kDrawn * kDrawn;
    const int64_t last = std::min(first + kDrawn, end);
    const float* draws = drawn + (c - first);
    if (seed == nullptr) {
      draws = uniform + c;
    } else {
      const int64_t skipped = (c - first) / 4;
      fill_uniform(PhiloxStream(seed), tensor, first / 4 + skipped, (last - first + 3) / 4 - skipped,
                   drawn + 4 * skipped);
    }
    visit(c, last, draws);
    c = last;
  }
}

}  // namespace mtl
