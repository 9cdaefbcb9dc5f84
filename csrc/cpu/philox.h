// Uniform numbers by the block. The only intrinsics of the package: gcc does not find the 32 x 32 -> 64 bit products of
// Philox in plain or vector-typed code (2.3 ns per value against 0.8).
#pragma once

#include <cstdint>

#include "common/philox.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mtl {

// The uniform numbers of elements 4 * block .. 4 * (block + count) of a tensor.
inline void fill_uniform_scalar(const PhiloxStream& stream, int64_t tensor, int64_t block, int64_t count, float* out) {
  for (int64_t b = 0; b < count; ++b) {
    const PhiloxWords words = stream.words(block + b, tensor);
    for (int w = 0; w < 4; ++w) out[4 * b + w] = uniform_from(words.word[w]);
  }
}

#if defined(__x86_64__)

#define MTL_AVX2 __attribute__((target("avx2")))

// High and low halves of eight products: the even lanes multiplied where they are, the odd ones shifted down.
MTL_AVX2 inline void multiply_lanes(__m256i a, __m256i b, __m256i& high, __m256i& low) {
  const __m256i even = _mm256_mul_epu32(a, b);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), b);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0b10101010);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0b10101010);
}

// Eight counters at once: word w of counter b goes to lane b of words[w].
MTL_AVX2 inline void philox_lanes(const PhiloxStream& stream, int64_t tensor, int64_t block, __m256i words[4]) {
  const uint64_t position = static_cast<uint64_t>(block);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256i c0 = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(position)), lanes);
  __m256i c1 = _mm256_set1_epi32(static_cast<int>(position >> 32));
  __m256i c2 = _mm256_set1_epi32(static_cast<int>(tensor));
  __m256i c3 = _mm256_set1_epi32(static_cast<int>(stream.step));
  uint32_t key_low = stream.key_low, key_high = stream.key_high;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    __m256i high0, low0, high2, low2;
    multiply_lanes(c0, _mm256_set1_epi32(static_cast<int>(0xD2511F53)), high0, low0);
    multiply_lanes(c2, _mm256_set1_epi32(static_cast<int>(0xCD9E8D57)), high2, low2);
    c0 = _mm256_xor_si256(_mm256_xor_si256(high2, c1), _mm256_set1_epi32(static_cast<int>(key_low)));
    c2 = _mm256_xor_si256(_mm256_xor_si256(high0, c3), _mm256_set1_epi32(static_cast<int>(key_high)));
    c1 = low2;
    c3 = low0;
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// Turns lanes of counters into runs of four words: words[v] holds the words of counters 2v and 2v + 1.
MTL_AVX2 inline void transpose_lanes(__m256i words[4]) {
  const __m256i low01 = _mm256_unpacklo_epi32(words[0], words[1]), high01 = _mm256_unpackhi_epi32(words[0], words[1]);
  const __m256i low23 = _mm256_unpacklo_epi32(words[2], words[3]), high23 = _mm256_unpackhi_epi32(words[2], words[3]);
  const __m256i counters04 = _mm256_unpacklo_epi64(low01, low23), counters15 = _mm256_unpackhi_epi64(low01, low23);
  const __m256i counters26 = _mm256_unpacklo_epi64(high01, high23), counters37 = _mm256_unpackhi_epi64(high01, high23);
  words[0] = _mm256_permute2x128_si256(counters04, counters15, 0x20);
  words[1] = _mm256_permute2x128_si256(counters26, counters37, 0x20);
  words[2] = _mm256_permute2x128_si256(counters04, counters15, 0x31);
  words[3] = _mm256_permute2x128_si256(counters26, counters37, 0x31);
}

MTL_AVX2 inline void fill_uniform_avx2(const PhiloxStream& stream, int64_t tensor, int64_t block, int64_t count,
                                       float* out) {
  constexpr int64_t kLow = 0xffffffff;
  for (; count >= 8 && (block & kLow) + 7 <= kLow; block += 8, count -= 8, out += 32) {  // no carry between the lanes
    __m256i words[4];
    philox_lanes(stream, tensor, block, words);
    transpose_lanes(words);
    for (int v = 0; v < 4; ++v) {
      const __m256 integer = _mm256_cvtepi32_ps(_mm256_srli_epi32(words[v], 8));
      _mm256_storeu_ps(out + 8 * v, _mm256_mul_ps(integer, _mm256_set1_ps(0x1p-24f)));
    }
  }
  fill_uniform_scalar(stream, tensor, block, count, out);
}

#undef MTL_AVX2

#endif

inline auto choose_fill_uniform() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return &fill_uniform_avx2;
#endif
  return &fill_uniform_scalar;
}

}  // namespace mtl
