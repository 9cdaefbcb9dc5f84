// Uniform numbers by the block. The only intrinsics of the package: gcc does not find the 32 x 32 -> 64 bit products of
// Philox in plain or vector-typed code (2.3 ns per value against 0.8).
#pragma once

#include <cstdint>
#include <initializer_list>

#include "common/philox.h"

#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own header
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
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
#define MTL_AVX512 __attribute__((target("avx512f")))

// The vector versions hold a counter's words in four vectors, one counter per 64-bit lane, in its low half: a product
// is the next round's low word as it is, its upper half shifted down the high word, and what stands in upper halves is
// never read. A round is a chain of dependent instructions, so four vectors of counters go side by side.
constexpr int kSideBySide = 4;

// The keys of the ten rounds.
struct RoundKeys {
  uint32_t low[10], high[10];

  explicit RoundKeys(const PhiloxStream& stream) {
    for (uint32_t round = 0; round < 10; ++round) {
      low[round] = stream.key_low + round * 0x9E3779B9;
      high[round] = stream.key_high + round * 0xBB67AE85;
    }
  }
};

// Whether none of `count` counters from `block` on carries into the second word.
inline bool same_second_word(int64_t block, int64_t count) {
  constexpr int64_t kLow = 0xffffffff;
  return (block & kLow) + count - 1 <= kLow;
}

MTL_AVX2 inline void fill_uniform_avx2(const PhiloxStream& stream, int64_t tensor, int64_t block, int64_t count,
                                       float* out) {
  constexpr int kCounters = 4 * kSideBySide;
  const RoundKeys keys(stream);
  // The order in which the final unpacking leaves consecutive counters side by side.
  const __m256i counter_of = _mm256_setr_epi64x(0, 2, 1, 3);
  const __m256i multiplier0 = _mm256_set1_epi64x(0xD2511F53), multiplier2 = _mm256_set1_epi64x(0xCD9E8D57);
  const __m256 scale = _mm256_set1_ps(0x1p-24f);
  for (; count >= kCounters && same_second_word(block, kCounters); block += kCounters, count -= kCounters) {
    __m256i c0[kSideBySide], c1[kSideBySide], c2[kSideBySide], c3[kSideBySide];
#pragma GCC unroll 4
    for (int v = 0; v < kSideBySide; ++v) {
      c0[v] = _mm256_add_epi64(_mm256_set1_epi64x(static_cast<uint32_t>(block) + 4 * v), counter_of);
      c1[v] = _mm256_set1_epi64x(block >> 32);
      c2[v] = _mm256_set1_epi64x(tensor);
      c3[v] = _mm256_set1_epi64x(stream.step);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const __m256i key_low = _mm256_set1_epi64x(keys.low[round]), key_high = _mm256_set1_epi64x(keys.high[round]);
#pragma GCC unroll 4
      for (int v = 0; v < kSideBySide; ++v) {
        const __m256i product0 = _mm256_mul_epu32(c0[v], multiplier0), product2 = _mm256_mul_epu32(c2[v], multiplier2);
        c0[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product2, 32), c1[v]), key_low);
        c2[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c3[v]), key_high);
        c1[v] = product2;
        c3[v] = product0;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kSideBySide; ++v) {
      const __m256i words01 = _mm256_blend_epi32(c0[v], _mm256_slli_epi64(c1[v], 32), 0b10101010);
      const __m256i words23 = _mm256_blend_epi32(c2[v], _mm256_slli_epi64(c3[v], 32), 0b10101010);
      for (const __m256i words : {_mm256_unpacklo_epi64(words01, words23), _mm256_unpackhi_epi64(words01, words23)}) {
        _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(words, 8)), scale));
        out += 8;
      }
    }
  }
  fill_uniform_scalar(stream, tensor, block, count, out);
}

MTL_AVX512 inline void fill_uniform_avx512(const PhiloxStream& stream, int64_t tensor, int64_t block, int64_t count,
                                           float* out) {
  constexpr int kCounters = 8 * kSideBySide;
  constexpr int kXor = 0b10010110;  // of three
  const RoundKeys keys(stream);
  const __m512i counter_of = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m512i multiplier0 = _mm512_set1_epi64(0xD2511F53), multiplier2 = _mm512_set1_epi64(0xCD9E8D57);
  const __m512 scale = _mm512_set1_ps(0x1p-24f);
  for (; count >= kCounters && same_second_word(block, kCounters); block += kCounters, count -= kCounters) {
    __m512i c0[kSideBySide], c1[kSideBySide], c2[kSideBySide], c3[kSideBySide];
#pragma GCC unroll 4
    for (int v = 0; v < kSideBySide; ++v) {
      c0[v] = _mm512_add_epi64(_mm512_set1_epi64(static_cast<uint32_t>(block) + 8 * v), counter_of);
      c1[v] = _mm512_set1_epi64(block >> 32);
      c2[v] = _mm512_set1_epi64(tensor);
      c3[v] = _mm512_set1_epi64(stream.step);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const __m512i key_low = _mm512_set1_epi64(keys.low[round]), key_high = _mm512_set1_epi64(keys.high[round]);
#pragma GCC unroll 4
      for (int v = 0; v < kSideBySide; ++v) {
        const __m512i product0 = _mm512_mul_epu32(c0[v], multiplier0), product2 = _mm512_mul_epu32(c2[v], multiplier2);
        c0[v] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product2, 32), c1[v], key_low, kXor);
        c2[v] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), c3[v], key_high, kXor);
        c1[v] = product2;
        c3[v] = product0;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kSideBySide; ++v) {
      const __m512i words01 = _mm512_mask_shuffle_epi32(c0[v], 0xAAAA, c1[v], _MM_PERM_CCAA);
      const __m512i words23 = _mm512_mask_shuffle_epi32(c2[v], 0xAAAA, c3[v], _MM_PERM_CCAA);
      for (const __m512i words : {_mm512_unpacklo_epi64(words01, words23), _mm512_unpackhi_epi64(words01, words23)}) {
        _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(words, 8)), scale));
        out += 16;
      }
    }
  }
  fill_uniform_avx2(stream, tensor, block, count, out);
}

#undef MTL_AVX2
#undef MTL_AVX512

#endif

inline auto choose_fill_uniform() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return &fill_uniform_avx512;
  if (__builtin_cpu_supports("avx2")) return &fill_uniform_avx2;
#endif
  return &fill_uniform_scalar;
}

}  // namespace mtl
