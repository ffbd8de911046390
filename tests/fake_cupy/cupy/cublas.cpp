// The part of cuBLAS that gru-xp calls. It multiplies on the host, checks its arguments as cuBLAS does, and asks Python
// whether the stream is capturing: then Python runs the product later.
typedef unsigned long size_t;
extern "C" char *getenv(const char *);
extern "C" const char *strstr(const char *, const char *);
struct Handle { void *stream, *workspace; size_t bytes; bool alive; int device; };
struct Gemm {
    int transpose_a, transpose_b, m, n, k, dtype, lda, ldb, ldc, compute;
    double alpha, beta;
    void *a, *b, *c, *stream, *workspace;
    int device;
};
enum { SUCCESS, NOT_INITIALIZED, ALLOC_FAILED = 3, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F, R_64F };
enum { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_32F_FAST_TF32 = 77 };
static int (*record)(const Gemm *);
static int (*current_device)(void);

// A factor as the product uses it: TF32 has 10 bits after the point, and is the nearest such number, ties to even.
static double factor(double x, bool) { return x; }
static double factor(float x, bool is_tf32)
{
    unsigned bits;
    __builtin_memcpy(&bits, &x, 4);
    if (!is_tf32 || (bits & 0x7f800000) == 0x7f800000) return x;
    bits = (bits + 0xfff + ((bits >> 13) & 1)) & ~0x1fffu;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
template <typename T> static void multiply(const Gemm &g)
{
    const T *a = (T *)g.a, *b = (T *)g.b;
    const bool tf32 = g.compute == COMPUTE_32F_FAST_TF32;
    double *sums = new double[g.m + 1];
    for (int j = 0; j < g.n; ++j) {
        for (int i = 0; i < g.m; ++i) sums[i] = 0;
        const T *column = b + (g.transpose_b ? j : (size_t)j * g.ldb);
        const size_t step = g.transpose_b ? g.ldb : 1;
        if (g.transpose_a)
            for (int i = 0; i < g.m; ++i)
                for (int l = 0; l < g.k; ++l)
                    sums[i] += factor(a[l + (size_t)i * g.lda], tf32) * factor(column[l * step], tf32);
        else
            for (int l = 0; l < g.k; ++l)
                for (int i = 0; i < g.m; ++i)
                    sums[i] += factor(a[i + (size_t)l * g.lda], tf32) * factor(column[l * step], tf32);
        for (int i = 0; i < g.m; ++i) {
            T &c = ((T *)g.c)[i + (size_t)j * g.ldc];
            c = (T)(g.alpha * sums[i] + (g.beta == 0 ? 0 : g.beta * (double)c));
        }
    }
    delete[] sums;
}
static bool short_of(int leading, int rows) { return leading < (rows > 1 ? rows : 1); }

extern "C" {
void fake_set_callbacks(int (*for_products)(const Gemm *), int (*for_devices)(void))
{
    record = for_products;
    current_device = for_devices;
}
void fake_run(const Gemm *g) { g->dtype == R_32F ? multiply<float>(*g) : multiply<double>(*g); }
int cublasCreate_v2(Handle **handle)
{
    if (!handle) return INVALID_VALUE;
    const char *faults = getenv("FAKE_CUPY_FAIL");
    if (faults && strstr(faults, "cublasCreate")) return ALLOC_FAILED;
    *handle = new Handle{0, 0, 0, true, current_device ? current_device() : 0};
    return SUCCESS;
}
int cublasDestroy_v2(Handle *handle)
{
    if (!handle || !handle->alive) return NOT_INITIALIZED;
    handle->alive = false;  // and never freed, so that later calls are noticed
    return SUCCESS;
}
int cublasSetStream_v2(Handle *handle, void *stream)
{
    if (!handle || !handle->alive) return NOT_INITIALIZED;
    handle->stream = stream;
    handle->workspace = 0;
    return SUCCESS;
}
int cublasSetWorkspace_v2(Handle *handle, void *workspace, size_t bytes)
{
    if (!handle || !handle->alive) return NOT_INITIALIZED;
    if ((size_t)workspace % 256) return INVALID_VALUE;
    handle->workspace = workspace;
    handle->bytes = bytes;
    return SUCCESS;
}
const char *cublasGetStatusName(int status)
{
    return status == INVALID_VALUE      ? "CUBLAS_STATUS_INVALID_VALUE"
           : status == ALLOC_FAILED     ? "CUBLAS_STATUS_ALLOC_FAILED"
           : status == NOT_INITIALIZED  ? "CUBLAS_STATUS_NOT_INITIALIZED"
           : status == EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED"
           : status == NOT_SUPPORTED    ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                        : "CUBLAS_STATUS_UNKNOWN";
}
int cublasGemmEx(Handle *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int a_type,
                 int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc,
                 int compute, int algorithm)
{
    if (!handle || !handle->alive) return NOT_INITIALIZED;
    if (m < 0 || n < 0 || k < 0 || (ta != 0 && ta != 1) || (tb != 0 && tb != 1)) return INVALID_VALUE;
    if (short_of(lda, ta ? k : m) || short_of(ldb, tb ? n : k) || short_of(ldc, m)) return INVALID_VALUE;
    if (a_type != b_type || a_type != c_type || (a_type != R_32F && a_type != R_64F)) return NOT_SUPPORTED;
    if (a_type == R_32F ? compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_TF32 : compute != COMPUTE_64F)
        return NOT_SUPPORTED;
    if (algorithm != -1) return INVALID_VALUE;
    if (!handle->workspace) return INVALID_VALUE;  // capturing needs one
    if (handle->bytes < 16384) return ALLOC_FAILED;
    const bool is_float = a_type == R_32F;
    const Gemm gemm = {ta, tb, m, n, k, a_type, lda, ldb, ldc, compute,
                       is_float ? *(const float *)alpha : *(const double *)alpha,
                       is_float ? *(const float *)beta : *(const double *)beta,
                       (void *)a, (void *)b, c, handle->stream, handle->workspace, handle->device};
    const int done = record ? record(&gemm) : 0;
    if (!done) fake_run(&gemm);
    return done == 2 ? EXECUTION_FAILED : SUCCESS;
}
}
