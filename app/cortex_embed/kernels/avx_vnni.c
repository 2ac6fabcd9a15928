/* AVX2 with the integer dot product (Alder Lake and later without AVX-512). */
#include <immintrin.h>
#define VW 8
#define NR 16
#define BYTE_ROWS 6
#define GROUP 2
#define INTEGERS 1
#define NAME ck_avx_vnni
#define dot4(sum, x, w) ((vi)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(x), (__m256i)(w)))
#define dot2(sum, x, y) ((vi)_mm256_dpwssd_avx_epi32((__m256i)(sum), (__m256i)(x), (__m256i)(y)))
#include "encoder.inc"
