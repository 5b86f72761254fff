/* What tests tell the emulation beyond CUDA's own calls, from C or C++. Environment variables, read
 * at the first call of the stand-ins, do the same for whole programs:
 *
 *   VAE_SIMT_ORDER=forward|reverse|shuffled[:seed]       order of threads and of blocks
 *   VAE_SIMT_STREAMS=lazy|latest|earliest|random[:seed]  what else runs when a stream is waited for
 *   VAE_SIMT_EAGER=1         operations run at once instead of when somebody waits for them
 *   VAE_SIMT_FAIL=N[+]       the N-th call of a stand-in (from 1) fails; with + so do all after it
 *   VAE_SIMT_NO_DEVICE=1     there is no device; =driver: no driver; =old: the driver is too old
 *   VAE_SIMT_MEMORY=bytes    memory of the device (default 8 GiB)
 *   VAE_SIMT_DEVICES=n       number of devices (default 1); they share their memory
 *   VAE_SIMT_ARCH=90         compute capability (default 90)
 *   VAE_SIMT_LT_REFUSE=list  epilogues cuBLASLt is to refuse: names like DRELU_BGRAD, BGRADA, or
 *                            aux, bgrad, all (everything but DEFAULT), comma separated; with :bf16
 *                            or :f32 behind a name, for that type of D only
 *   VAE_SIMT_NO_CUBLASLT=1  libcublasLt does not load; =symbol: it lacks that (dlfcn.h here)
 *   VAE_SIMT_NO_NCCL=1       the same of libnccl
 *   VAE_SIMT_NCCL_LOST=N     from the N-th look at it on, NCCL says that another rank is lost
 *   VAE_SIMT_TRACE=1         every call and operation to stderr
 */
#ifndef SIMT_CONTROL_H
#define SIMT_CONTROL_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SIMT_FORWARD, SIMT_REVERSE, SIMT_SHUFFLED } simt_order;
typedef enum { SIMT_LAZY, SIMT_LATEST, SIMT_EARLIEST, SIMT_RANDOM } simt_streams;

void simt_set_order(simt_order order, unsigned seed);
void simt_set_streams(simt_streams policy, unsigned seed);
void simt_set_eager(int eager);

/* The n-th call from now (1 = the next) fails, n = 0: none; sticky: and all that follow it. */
void simt_fail_call(unsigned long n, int sticky);
/* Calls of stand-ins that can fail, so far: run once, then loop n over what was counted. */
unsigned long simt_calls(void);
/* Name of the call that simt_fail_call made fail, or NULL if it has not come yet. */
const char *simt_failed(void);
/* Times that the call (e.g. "cudaMalloc"), or the kernel launch ("name" as written), was made. */
unsigned long simt_count(const char *name);
/* As VAE_SIMT_LT_REFUSE; NULL: nothing. */
void simt_refuse_epilogues(const char *list);
/* As VAE_SIMT_NO_DEVICE ("" or NULL: there is one), and the memory of the device. */
void simt_set_no_device(const char *how);
void simt_set_memory(unsigned long bytes);
/* Lets kernels read and write pinned host memory, which CUDA allows and vae does not do. */
void simt_allow_pinned(int allow);
/* Device allocations, pinned allocations, streams, events, graphs and cuBLASLt objects that are
 * alive; with `list`, each is named on stderr. */
unsigned long simt_alive(int list);

#ifdef __cplusplus
}
#endif

#endif
