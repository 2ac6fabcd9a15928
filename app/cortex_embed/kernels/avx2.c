/* AVX2: pairs of products in 16 bits, which the weights are kept small enough for
 * (build/quantize.py, `round_weight`). */
#include <immintrin.h>
#define VW 8
#define NR 16
#define BYTE_ROWS 4
#define GROUP 2
#define NAME ck_avx2
#define dot4(sum, x, w)                                                                  \
    ((vi)_mm256_add_epi32((__m256i)(sum),                                                \
                          _mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)(x), (__m256i)(w)), \
                                            _mm256_set1_epi16(1))))
#define dot2(sum, x, y) \
    ((vi)_mm256_add_epi32((__m256i)(sum), _mm256_madd_epi16((__m256i)(x), (__m256i)(y))))
#include "encoder.inc"
