// Philox4x32-10 (Salmon et al. 2011): four random words per counter, without state, for host and device alike.
//
// The layout is frozen: element i of tensor p draws word i mod 4 of counter (i / 4 low, i / 4 high, p, step) under the
// key (seed low, seed high), and its uniform number is (word >> 8) * 2^-24.
#pragma once

#include <cstdint>

#include "common/dtypes.h"

namespace mtl {

struct PhiloxWords {
  uint32_t word[4];
};

MTL_HOST_DEVICE PhiloxWords philox4x32(PhiloxWords counter, uint32_t key_low, uint32_t key_high) {
  uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c0;
    const uint64_t product2 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(product2 >> 32) ^ c1 ^ key_low;
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key_high;
    c1 = static_cast<uint32_t>(product2);
    c3 = static_cast<uint32_t>(product0);
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

// The draws of one step: everything of counter and key but the element.
struct PhiloxStream {
  uint32_t key_low, key_high, step;

  // seed: [2], seed and step.
  MTL_HOST_DEVICE explicit PhiloxStream(const int64_t* seed)
      : key_low(static_cast<uint32_t>(seed[0])),
        key_high(static_cast<uint32_t>(static_cast<uint64_t>(seed[0]) >> 32)),
        step(static_cast<uint32_t>(seed[1])) {}

  // The words of elements 4 * block .. 4 * block + 3 of a tensor.
  MTL_HOST_DEVICE PhiloxWords words(int64_t block, int64_t tensor) const {
    const uint64_t position = static_cast<uint64_t>(block);
    return philox4x32(
        {{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), static_cast<uint32_t>(tensor), step}},
        key_low, key_high);
  }
};

MTL_HOST_DEVICE float uniform_from(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

}  // namespace mtl
