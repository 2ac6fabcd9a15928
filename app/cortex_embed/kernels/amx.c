/* AVX-512 with AMX beside it: tiles multiply bytes and bf16 (Sapphire Rapids and later). They multiply so
 * fast that panels are of a width which the first-level cache has room for. */
#include <immintrin.h>
#define VW 16
#define NR 64
#define BYTE_ROWS 6
#define GROUP 2
#define BYTE_PANEL 32
#define AMX 1
#define NAME ck_amx
#define dot4(sum, x, w) ((vi)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w)))
#define dot2(sum, x, y) ((vi)_mm512_dpwssd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(y)))
#define ATTENTION ck_attention_avx512
#define ATTENTION16 ck_attention16_avx512_vnni
#include "encoder.inc"
