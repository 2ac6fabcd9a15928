/* ARM with the dot product of signed bytes (ARMv8.2 DotProd). The input's unsigned bytes are moved
 * into its range by their top bit, and every sum starts 128 times the column's weights higher. */
#include <arm_neon.h>
#define VW 4
#define NR 16
#define BYTE_ROWS 6
#define GROUP 4
#define NAME ck_neon_dot
#define SIGNED_INPUT 1
#define dot4(sum, x, w) \
    ((vi)vdotq_s32((int32x4_t)(sum), vreinterpretq_s8_s32((int32x4_t)(x)), vreinterpretq_s8_s32((int32x4_t)(w))))
#define dot2(sum, x, y) ((sum) + ((x) << 16 >> 16) * ((y) << 16 >> 16) + ((x) >> 16) * ((y) >> 16))
#include "encoder.inc"
