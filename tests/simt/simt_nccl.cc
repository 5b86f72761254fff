/* NCCL between emulated devices of several processes: what ranks share lies in POSIX shared memory that
 * goes by the name in the unique id. A sum is an operation of its stream, captured or not; when it runs,
 * the process waits for the others there, as a GPU does. All must run the same sums in the same order:
 * what differs is said, and ends the program. A communicator may only go when no graph has a sum of it.
 *
 * Sums are added in the order of ranks, so they have the same bits on all. */
#include "../../host/backend/cuda/nccl.h"
#include "simt_internal.h"

#include <algorithm>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace
{

enum { MOST_RANKS = 16, CHUNK = 1 << 14 }; /* floats that are exchanged at a time */

struct shared_memory {
    uint32_t arrived, turn; /* of the barrier */
    struct {
        uint64_t number, count; /* of the sum that a rank is at */
    } at[MOST_RANKS];
    float data[MOST_RANKS][CHUNK];
};

} // namespace

struct ncclComm {
    shared_memory *shared;
    int n, rank;
    uint64_t sums;
    pid_t parent; /* the launcher: without it there is no one to wait for */
    bool aborted; /* its sums do nothing any more */
    ~ncclComm()
    {
        munmap(shared, sizeof *shared);
    }
};
typedef std::shared_ptr<ncclComm> comm_ref;

namespace simt
{
namespace
{

struct comm_list {
    std::vector<comm_ref> all;
};
comm_list &comms()
{
    static comm_list *l = new comm_list;
    return *l;
}

/* Waits for all ranks. */
void barrier(ncclComm *c)
{
    shared_memory *s = c->shared;
    const uint32_t turn = __atomic_load_n(&s->turn, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&s->arrived, 1, __ATOMIC_ACQ_REL) == (uint32_t)c->n) {
        __atomic_store_n(&s->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&s->turn, turn + 1, __ATOMIC_RELEASE);
        return;
    }
    for (unsigned looks = 0; __atomic_load_n(&s->turn, __ATOMIC_ACQUIRE) == turn; looks++) {
        if (looks < 100) {
            sched_yield();
        } else {
            usleep(50);
        }
        if (getppid() != c->parent) {
            _exit(1);
        }
    }
}

comm_ref find(ncclComm *comm)
{
    for (const comm_ref &c : comms().all) {
        if (c.get() == comm) {
            return c;
        }
    }
    return nullptr;
}

struct sum_work : work {
    comm_ref comm; /* an aborted one's sums may be under way yet */
    const float *send;
    float *receive;
    size_t n;

    void check_alike(uint64_t number)
    {
        shared_memory *s = comm->shared;
        s->at[comm->rank].number = number;
        s->at[comm->rank].count = n;
        barrier(comm.get());
        for (int r = 0; r < comm->n; r++) {
            if (s->at[r].number != number || s->at[r].count != n) {
                die("NCCL: rank %d is at sum %llu of %zu values, rank %d at %llu of %llu",
                    comm->rank, (unsigned long long)number, n, r,
                    (unsigned long long)s->at[r].number, (unsigned long long)s->at[r].count);
            }
        }
    }
    void run() override
    {
        shared_memory *s = comm->shared;
        if (comm->aborted) {
            return;
        }
        check_alike(++comm->sums);
        note_read(send, n * sizeof *send);
        note_write(receive, n * sizeof *receive);
        for (size_t first = 0; first < n; first += CHUNK) {
            const size_t some = std::min<size_t>(n - first, CHUNK);
            static float sum[CHUNK];
            raw_copy(s->data[comm->rank], send + first, some * sizeof *send);
            barrier(comm.get());
            for (size_t i = 0; i < some; i++) {
                sum[i] = s->data[0][i];
                for (int r = 1; r < comm->n; r++) {
                    sum[i] += s->data[r][i];
                }
            }
            barrier(comm.get()); /* all have read it */
            raw_copy(receive + first, sum, some * sizeof *receive);
        }
    }
};

struct nccl_call : call {
    explicit nccl_call(const char *name) : call(name, cudaErrorUnknown)
    {
    }
    ncclResult_t done(ncclResult_t result)
    {
        return refused() ? ncclSystemError : result;
    }
};

shared_memory *map(const char *name, int flags)
{
    const int fd = shm_open(name, flags, 0600);
    void *p = MAP_FAILED;
    if (fd >= 0 && (!(flags & O_CREAT) || ftruncate(fd, sizeof(shared_memory)) == 0)) {
        p = mmap(nullptr, sizeof(shared_memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    return p == MAP_FAILED ? nullptr : (shared_memory *)p;
}

bool is_sum_of(const work &node, const void *comm)
{
    const sum_work *sum = dynamic_cast<const sum_work *>(&node);
    return sum && sum->comm.get() == comm;
}

/* NCCL polls, in destroying as in aborting, until no graph refers to the communicator any more. */
void forget(ncclComm *comm, const char *call)
{
    if (in_graph(is_sum_of, comm)) {
        die("%s would wait for ever: a graph that has a sum of this communicator is not destroyed",
            call);
    }
    std::vector<comm_ref> &all = comms().all;
    all.erase(std::find(all.begin(), all.end(), find(comm)));
}

} // namespace

size_t nccl_alive(bool list)
{
    if (list && !comms().all.empty()) {
        fprintf(stderr, "simt: alive: %zu NCCL communicators\n", comms().all.size());
    }
    return comms().all.size();
}

} // namespace simt

using simt::nccl_call;

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    nccl_call c("ncclGetVersion");
    *version = 22809;
    return c.done(ncclSuccess);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    nccl_call c("ncclGetUniqueId");
    static unsigned made;
    if (c.refused()) {
        return c.done(ncclSuccess);
    }
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/vae-simt-%d-%u", (int)getpid(), made++);
    shared_memory *s = simt::map(id->internal, O_RDWR | O_CREAT | O_EXCL);
    if (s) {
        munmap(s, sizeof *s);
    }
    return c.done(s ? ncclSuccess : ncclSystemError);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n, ncclUniqueId id, int rank)
{
    nccl_call c("ncclCommInitRank");
    *comm = nullptr;
    if (c.refused() || n > MOST_RANKS || rank < 0 || rank >= n) {
        if (rank == 0) {
            shm_unlink(id.internal);
        }
        return c.done(ncclInvalidArgument);
    }
    shared_memory *s = simt::map(id.internal, O_RDWR);
    if (!s) {
        return c.done(ncclSystemError);
    }
    simt::comms().all.push_back(comm_ref(new ncclComm{s, n, rank, 0, getppid(), false}));
    *comm = simt::comms().all.back().get();
    simt::barrier(*comm);
    if (rank == 0) {
        shm_unlink(id.internal);
    }
    return c.done(ncclSuccess);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    nccl_call c("ncclCommDestroy");
    simt::forget(comm, c.name());
    return c.done(ncclSuccess);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    nccl_call c("ncclCommAbort");
    comm->aborted = true;
    simt::forget(comm, c.name());
    return c.done(ncclSuccess);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *error)
{
    nccl_call c("ncclCommGetAsyncError");
    static long looks;
    const char *lost = getenv("VAE_SIMT_NCCL_LOST");
    *error = lost && ++looks >= atol(lost) ? ncclRemoteError : ncclSuccess;
    return c.done(ncclSuccess);
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclRemoteError ? "remote process exited" : "emulated NCCL error";
}

const char *ncclGetLastError(ncclComm_t)
{
    return "";
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    nccl_call c("ncclAllReduce");
    if (c.refused()) {
        return c.done(ncclSuccess);
    }
    const comm_ref known = simt::find(comm);
    if (!known || type != ncclFloat || op != ncclSum || simt::kind_of(send) != simt::DEVICE ||
        simt::kind_of(receive) != simt::DEVICE || !simt::inside(send, count * sizeof(float)) ||
        !simt::inside(receive, count * sizeof(float))) {
        return c.done(ncclInvalidArgument);
    }
    auto w = std::make_shared<simt::sum_work>();
    w->name = "ncclAllReduce";
    w->comm = known;
    w->send = (const float *)send;
    w->receive = (float *)receive;
    w->n = count;
    return c.done(simt::submit(stream, w) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError);
}

} // extern "C"
