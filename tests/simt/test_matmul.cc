/* Cases about the cuBLASLt stand-in: numbers against a double loop, and its rules. */
#include "test_simt.h"

#include <math.h>

struct shape {
    int m, n, k;
    bool ta, tb, bf16;
    cublasComputeType_t compute;
};

static uint16_t to_bf16(float v)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
static float from_bf16(uint16_t v)
{
    return __bfloat162float(__ushort_as_bfloat16(v));
}

/* A column-major matrix on both sides; the device's padding stays NaN. */
struct matrix {
    int rows, cols, ld;
    bool bf16;
    float *host;
    void *dev;
    matrix(int rows_, int cols_, bool bf16_, unsigned seed)
        : rows(rows_), cols(cols_), ld((rows_ + 7) / 8 * 8 + 8), bf16(bf16_)
    {
        const size_t n = (size_t)ld * (size_t)cols, size = bf16 ? 2 : 4;
        host = (float *)malloc(n * sizeof *host);
        char *raw = (char *)malloc(n * size);
        CHECK(host && raw);
        memset(raw, 0xFF, n * size);
        for (int j = 0; j < cols; j++) {
            for (int i = 0; i < rows; i++) {
                seed = seed * 1664525u + 1013904223u;
                const float v = (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
                const uint16_t half = to_bf16(v);
                at(i, j) = bf16 ? from_bf16(half) : v;
                memcpy(raw + size * (size_t)(i + j * ld), bf16 ? (void *)&half : (void *)&v, size);
            }
        }
        OK(cudaMalloc(&dev, n * size));
        OK(cudaMemcpy(dev, raw, n * size, cudaMemcpyHostToDevice));
        OK(cudaDeviceSynchronize());
        free(raw);
    }
    float &at(int i, int j)
    {
        return host[(size_t)i + (size_t)j * (size_t)ld];
    }
    void fetch()
    {
        const size_t n = (size_t)ld * (size_t)cols;
        uint16_t *half = (uint16_t *)malloc(n * 4);
        CHECK(half);
        OK(cudaDeviceSynchronize());
        OK(cudaMemcpy(bf16 ? (void *)half : (void *)host, dev, n * (bf16 ? 2 : 4),
                      cudaMemcpyDeviceToHost));
        for (size_t i = 0; bf16 && i < n; i++) {
            host[i] = from_bf16(half[i]);
        }
        free(half);
    }
    cublasLtMatrixLayout_t layout() const
    {
        cublasLtMatrixLayout_t l;
        LT_OK(cublasLtMatrixLayoutCreate(&l, bf16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)rows,
                                         (uint64_t)cols, ld));
        return l;
    }
};

static cublasLtHandle_t handle()
{
    static cublasLtHandle_t h;
    if (!h) {
        LT_OK(cublasLtCreate(&h));
    }
    return h;
}

static cublasLtMatmulDesc_t describe(const shape &s, uint32_t epilogue, void *bias, void *aux,
                                     int64_t aux_ld)
{
    cublasLtMatmulDesc_t d;
    const int32_t ta = s.ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = s.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_OK(cublasLtMatmulDescCreate(&d, s.compute, CUDA_R_32F));
    LT_OK(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
    LT_OK(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
    LT_OK(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                         sizeof epilogue));
    LT_OK(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    LT_OK(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux,
                                         sizeof aux));
    LT_OK(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &aux_ld,
                                         sizeof aux_ld));
    return d;
}

struct asked {
    cublasStatus_t status;
    int found;
    cublasLtMatmulHeuristicResult_t results[4];
};

static asked ask(cublasLtMatmulDesc_t d, matrix &a, matrix &b, matrix &c, size_t workspace)
{
    cublasLtMatmulPreference_t p;
    asked r = {};
    LT_OK(cublasLtMatmulPreferenceCreate(&p));
    LT_OK(cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace, sizeof workspace));
    r.status = cublasLtMatmulAlgoGetHeuristic(handle(), d, a.layout(), b.layout(), c.layout(),
                                              c.layout(), p, 4, r.results, &r.found);
    return r;
}

static cublasStatus_t run(cublasLtMatmulDesc_t d, matrix &a, matrix &b, matrix &c, float alpha,
                          float beta, const cublasLtMatmulAlgo_t *algo, void *workspace,
                          size_t workspace_size, cudaStream_t s)
{
    return cublasLtMatmul(handle(), d, &alpha, a.dev, a.layout(), b.dev, b.layout(), &beta, c.dev,
                          c.layout(), c.dev, c.layout(), algo, workspace, workspace_size, s);
}

static double operand(matrix &m, bool transposed, int i, int j)
{
    return (double)(transposed ? m.at(j, i) : m.at(i, j));
}

/* c, bias and mask by a double loop, from their present values. */
static void reference(const shape &s, uint32_t e, matrix &a, matrix &b, matrix &c, matrix &bias,
                      matrix &mask, float alpha, float beta)
{
    const bool bgrad = e & 16;
    for (int i = 0; bgrad && i < s.m; i++) {
        bias.at(i, 0) = 0;
    }
    for (int j = 0; j < s.n; j++) {
        for (int i = 0; i < s.m; i++) {
            double x = 0;
            for (int l = 0; l < s.k; l++) {
                x += operand(a, s.ta, i, l) * operand(b, s.tb, l, j);
            }
            x = (double)alpha * x + (double)beta * (double)c.at(i, j);
            x += e & 4 ? (double)bias.at(i, 0) : 0.0;
            if (e & 2) {
                mask.at(i, j) = x > 0 ? 1.0f : 0.0f;
                x = x > 0 ? x : 0;
            }
            if (e & 8) {
                x *= (double)mask.at(i, j);
            }
            bias.at(bgrad ? i : 0, 0) += bgrad ? (float)x : 0.0f;
            c.at(i, j) = (float)x;
        }
    }
    const bool is_a = e == CUBLASLT_EPILOGUE_BGRADA;
    for (int i = 0; e >= CUBLASLT_EPILOGUE_BGRADA && i < (is_a ? s.m : s.n); i++) {
        bias.at(i, 0) = 0;
        for (int l = 0; l < s.k; l++) {
            bias.at(i, 0) += (float)(is_a ? operand(a, s.ta, i, l) : operand(b, s.tb, l, i));
        }
    }
}

static double error(matrix &got, matrix &want)
{
    double difference = 0, power = 1e-30;
    for (int j = 0; j < got.cols; j++) {
        for (int i = 0; i < got.rows; i++) {
            difference += pow((double)got.at(i, j) - (double)want.at(i, j), 2);
            power += pow((double)want.at(i, j), 2);
        }
    }
    return difference / power;
}

static void compare(const shape &s, uint32_t e, float beta)
{
    const int n_bias = e == CUBLASLT_EPILOGUE_BGRADB ? s.n : s.m;
    matrix a(s.ta ? s.k : s.m, s.ta ? s.m : s.k, s.bf16, 1),
        b(s.tb ? s.n : s.k, s.tb ? s.k : s.n, s.bf16, 2);
    matrix c(s.m, s.n, s.bf16, 3), want(s.m, s.n, s.bf16, 3);
    matrix bias(n_bias, 1, s.bf16, 4), want_bias(n_bias, 1, s.bf16, 4), mask(s.m, s.n, false, 5);
    const int64_t aux_ld = (s.m + 127) / 128 * 128;
    const size_t aux_bytes = (size_t)aux_ld * (size_t)s.n / 8;
    unsigned char *bits = (unsigned char *)calloc(aux_bytes, 1);
    void *aux, *workspace;
    OK(cudaMalloc(&aux, aux_bytes));
    OK(cudaMalloc(&workspace, 1 << 20));
    for (int j = 0; j < s.n; j++) {
        for (int i = 0; i < s.m; i++) {
            mask.at(i, j) = (i * 7 + j) % 3 == 0 ? 1.0f : 0.0f;
            bits[((size_t)j * (size_t)aux_ld + (size_t)i) / 8] |=
                (unsigned char)(((i * 7 + j) % 3 == 0) << i % 8);
        }
    }
    OK(cudaMemcpy(aux, bits, aux_bytes, cudaMemcpyHostToDevice));
    cublasLtMatmulDesc_t d = describe(s, e, bias.dev, aux, aux_ld);
    asked r = ask(d, a, b, c, 1 << 20);
    LT_OK(r.status);
    CHECK(r.found == 3);
    cudaStream_t stream;
    OK(cudaStreamCreate(&stream));
    LT_OK(run(d, a, b, c, 0.5f, beta, &r.results[0].algo, workspace, 1 << 20, stream));
    OK(cudaStreamSynchronize(stream));
    c.fetch();
    bias.fetch();
    reference(s, e, a, b, want, want_bias, mask, 0.5f, beta);
    const double limit = s.bf16 ? 1e-5 : s.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? 1e-6 : 1e-12;
    if (error(c, want) > limit || error(bias, want_bias) > limit * 10) {
        fprintf(stderr, "%dx%dx%d %d%d bf16 %d compute %d epilogue %u: error %g, bias %g\n", s.m,
                s.n, s.k, s.ta, s.tb, s.bf16, s.compute, e, error(c, want), error(bias, want_bias));
        exit(1);
    }
    OK(cudaMemcpy(bits, aux, aux_bytes, cudaMemcpyDeviceToHost));
    for (int j = 0; e & 2 && e & 128 && j < s.n; j++) {
        for (int i = 0; i < s.m; i++) {
            const int bit = bits[((size_t)j * (size_t)aux_ld + (size_t)i) / 8] >> i % 8 & 1;
            CHECK(bit == (c.at(i, j) > 0));
        }
    }
    free(bits);
}

CASE(matmul_numbers, nullptr, ALWAYS)
{
    const uint32_t epilogues[] = {
        CUBLASLT_EPILOGUE_DEFAULT,     CUBLASLT_EPILOGUE_BIAS,          CUBLASLT_EPILOGUE_RELU,
        CUBLASLT_EPILOGUE_RELU_BIAS,   CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_DRELU,
        CUBLASLT_EPILOGUE_DRELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,        CUBLASLT_EPILOGUE_BGRADB};
    for (int t = 0; t < 4; t++) {
        for (uint32_t e : epilogues) {
            compare({37, 21, 300, (t & 1) != 0, (t & 2) != 0, false, CUBLAS_COMPUTE_32F}, e, 0.0f);
            compare({40, 9, 24, (t & 1) != 0, (t & 2) != 0, true, CUBLAS_COMPUTE_32F}, e, 0.0f);
        }
        compare({16, 4, 8, (t & 1) != 0, (t & 2) != 0, false, CUBLAS_COMPUTE_32F_FAST_TF32}, 1,
                2.0f);
        compare({1, 1, 1, (t & 1) != 0, (t & 2) != 0, false, CUBLAS_COMPUTE_32F},
                CUBLASLT_EPILOGUE_BIAS, 1.0f);
    }
}

CASE(matmul_rules, nullptr, ALWAYS)
{
    const shape s = {40, 16, 24, false, false, false, CUBLAS_COMPUTE_32F};
    matrix a(40, 24, false, 1), b(24, 16, false, 2), c(40, 16, false, 3), bias(40, 1, false, 4);
    matrix wrong(40, 17, false, 5), half(40, 24, true, 6);
    void *aux;
    OK(cudaMalloc(&aux, 128 * 16 / 8));
    cublasLtMatmulDesc_t plain = describe(s, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0);
    LT_OK(ask(plain, a, b, c, 0).status);
    CHECK(ask(plain, a, b, c, 0).found == 1); /* the one without a workspace */
    CHECK(ask(plain, a, b, wrong, 0).status == CUBLAS_STATUS_INVALID_VALUE);
    CHECK(ask(plain, half, b, c, 0).status == CUBLAS_STATUS_NOT_SUPPORTED);
    const int ld = a.ld;
    a.ld = 39;
    CHECK(ask(plain, a, b, c, 0).status == CUBLAS_STATUS_INVALID_VALUE);
    a.ld = ld + 8; /* more than was allocated */
    CHECK(run(plain, a, b, c, 1, 0, nullptr, nullptr, 0, nullptr) == CUBLAS_STATUS_INVALID_VALUE);
    a.ld = ld;
    half.ld = 43;
    CHECK(ask(plain, half, half, c, 0).status != CUBLAS_STATUS_SUCCESS);
    for (int64_t aux_ld : {0, 64, 40, 120}) {
        CHECK(ask(describe(s, CUBLASLT_EPILOGUE_RELU_AUX_BIAS, bias.dev, aux, aux_ld), a, b, c, 0)
                  .status == CUBLAS_STATUS_INVALID_VALUE);
    }
    cublasLtMatmulDesc_t masked =
        describe(s, CUBLASLT_EPILOGUE_RELU_AUX_BIAS, bias.dev, (char *)aux + 16, 128);
    LT_OK(ask(masked, a, b, c, 0).status);
    CHECK(run(masked, a, b, c, 1, 0, nullptr, nullptr, 0, nullptr) == CUBLAS_STATUS_INVALID_VALUE);
    asked r = ask(plain, a, b, c, 1 << 20);
    CHECK(run(plain, a, b, c, 1, 0, &r.results[0].algo, nullptr, 0, nullptr) ==
          CUBLAS_STATUS_INVALID_VALUE); /* no workspace */
    CHECK(run(describe(s, CUBLASLT_EPILOGUE_RELU, nullptr, nullptr, 0), a, b, c, 1, 0,
              &r.results[1].algo, nullptr, 0, nullptr) == CUBLAS_STATUS_INVALID_VALUE);
    void *const dev = a.dev;
    a.dev = (char *)dev + 4; /* less aligned than the heuristic was told */
    CHECK(run(plain, a, b, c, 1, 0, &r.results[1].algo, nullptr, 0, nullptr) ==
          CUBLAS_STATUS_INVALID_VALUE);
    a.dev = a.host;
    CHECK(run(plain, a, b, c, 1, 0, nullptr, nullptr, 0, nullptr) == CUBLAS_STATUS_INVALID_VALUE);
}
CASE(matmul_refuses_what_it_is_told_to, nullptr, ALWAYS)
{
    const shape s = {40, 16, 24, false, false, false, CUBLAS_COMPUTE_32F};
    matrix a(40, 24, false, 1), b(24, 16, false, 2), c(40, 16, false, 3), bias(40, 1, false, 4);
    cublasLtMatmulDesc_t d = describe(s, CUBLASLT_EPILOGUE_BGRADA, bias.dev, nullptr, 0);
    for (const char *list : {"bgrad", "DRELU,BGRADA", "all", "BGRADA:f32"}) {
        simt_refuse_epilogues(list);
        CHECK(ask(d, a, b, c, 0).status == CUBLAS_STATUS_NOT_SUPPORTED);
    }
    for (const char *list : {"", "BGRADB,aux", "BGRADA:bf16"}) {
        simt_refuse_epilogues(list);
        LT_OK(ask(d, a, b, c, 0).status);
    }
}
CASE(matmul_output_over_input, "overlaps an input", ALWAYS)
{
    const shape s = {24, 24, 24, false, false, false, CUBLAS_COMPUTE_32F};
    matrix a(24, 24, false, 1), b(24, 24, false, 2);
    run(describe(s, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0), a, b, a, 1, 0, nullptr,
        nullptr, 0, nullptr);
}
CASE(workspace_shared_by_streams, "data race", WITH_TSAN)
{
    const shape s = {40, 16, 24, false, false, false, CUBLAS_COMPUTE_32F};
    matrix a(40, 24, false, 1), b(24, 16, false, 2), c(40, 16, false, 3), d(40, 16, false, 4);
    cublasLtMatmulDesc_t plain = describe(s, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0);
    asked r = ask(plain, a, b, c, 1 << 20);
    void *workspace;
    OK(cudaMalloc(&workspace, 1 << 20));
    LT_OK(run(plain, a, b, c, 1, 0, &r.results[0].algo, workspace, 1 << 20, new_stream()));
    LT_OK(run(plain, a, b, d, 1, 0, &r.results[0].algo, workspace, 1 << 20, new_stream()));
    OK(cudaDeviceSynchronize());
}
