/* The forward selective scan written by hand for AVX2: what `scan.cpu` is measured against.
 *
 * Time-major and float32: u, delta, z, out (b, l, d); a2 = A log2(e) (n, d); B, C (b, l, n);
 * D, bias (d). d is a multiple of 16, n at most 64. Softplus and the gate are fused as in ours, and
 * exp2 has the same polynomial. Sixteen channels a task, which was the fastest of 8, 16, 32 and 64.
 */
#include <immintrin.h>
#include <stddef.h>

#define PARTS 2

static inline __m256 c(float x) { return _mm256_set1_ps(x); }

static inline __m256 exp2_8(__m256 x) {
    x = _mm256_min_ps(_mm256_max_ps(x, c(-127.f)), c(128.f));
    __m256 r = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 t = _mm256_sub_ps(x, r);
    __m256 p = _mm256_fmadd_ps(c(0.0013264720f), t, c(0.0096715131f));
    p = _mm256_fmadd_ps(p, t, c(0.0555073377f));
    p = _mm256_fmadd_ps(p, t, c(0.2402224207f));
    p = _mm256_fmadd_ps(p, t, c(0.6931469776f));
    p = _mm256_fmadd_ps(p, t, c(1.f));
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(r), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

static inline __m256 softplus_8(__m256 x) {
    const float q[] = {-0.49999648f, 0.33321321f,  -0.24857152f, 0.19153607f,
                       -0.13753699f, 0.07920331f, -0.03006504f, 0.00536464f};
    __m256 e = exp2_8(_mm256_mul_ps(_mm256_or_ps(x, c(-0.f)), c(1.44269504f)));
    __m256 p = c(q[7]);
    for (int i = 6; i >= 0; i--) p = _mm256_fmadd_ps(p, e, c(q[i]));
    p = _mm256_fmadd_ps(p, e, c(1.f));
    return _mm256_fmadd_ps(p, e, _mm256_max_ps(x, c(0.f)));
}

static inline __m256 silu_8(__m256 x) {
    __m256 e = exp2_8(_mm256_mul_ps(x, c(-1.44269504f)));
    return _mm256_div_ps(x, _mm256_add_ps(c(1.f), e));
}

void avx2_scan(int b, int l, int d, int n, const float *u, const float *delta, const float *a2,
               const float *B, const float *C, const float *D, const float *z, const float *bias,
               float *out) {
    int blocks = d / (8 * PARTS);
#pragma omp parallel for schedule(static)
    for (int task = 0; task < b * blocks; task++) {
        int first = task % blocks * 8 * PARTS;
        __m256 h[64][PARTS], a[64][PARTS];
        for (int s = 0; s < n; s++)
            for (int v = 0; v < PARTS; v++) {
                h[s][v] = c(0.f);
                a[s][v] = _mm256_loadu_ps(a2 + (size_t)s * d + first + 8 * v);
            }
        for (int t = 0; t < l; t++) {
            size_t row = (size_t)(task / blocks) * l + t, at = row * d + first;
            __m256 step[PARTS], x[PARTS], y[PARTS];
            for (int v = 0; v < PARTS; v++) {
                __m256 raw = _mm256_loadu_ps(delta + at + 8 * v);
                step[v] = softplus_8(_mm256_add_ps(raw, _mm256_loadu_ps(bias + first + 8 * v)));
                x[v] = _mm256_loadu_ps(u + at + 8 * v);
                y[v] = _mm256_mul_ps(x[v], _mm256_loadu_ps(D + first + 8 * v));
                x[v] = _mm256_mul_ps(x[v], step[v]);
            }
            for (int s = 0; s < n; s++) {
                __m256 bs = _mm256_broadcast_ss(B + row * n + s);
                __m256 cs = _mm256_broadcast_ss(C + row * n + s);
                for (int v = 0; v < PARTS; v++) {
                    __m256 decay = exp2_8(_mm256_mul_ps(step[v], a[s][v]));
                    h[s][v] = _mm256_fmadd_ps(decay, h[s][v], _mm256_mul_ps(x[v], bs));
                    y[v] = _mm256_fmadd_ps(h[s][v], cs, y[v]);
                }
            }
            for (int v = 0; v < PARTS; v++) {
                __m256 gate = silu_8(_mm256_loadu_ps(z + at + 8 * v));
                _mm256_storeu_ps(out + at + 8 * v, _mm256_mul_ps(y[v], gate));
            }
        }
    }
}
