/* What kernels call: barriers, operations of a warp, fences. The thread that completes one goes on;
 * the others wait in simt_sched.cc. */
#include "simt_block.h"

using namespace simt;

namespace
{

void complete_barrier()
{
    block.barrier_result = block.barrier_votes;
    block.n_at_barrier = block.barrier_votes = 0;
    for (int i = 0; i < block.n_threads; i++) {
        int t = block.order[i];
        if (block.threads[t].state == AT_BARRIER) {
            push_ready(t);
        }
    }
}

/* Operands as float: of tf32 the upper 19 bits, of bf16 one of two in a word. */
template <bool bf16> inline float mma_value(uint32_t word, int in)
{
    return simt_bits<float>(!bf16 ? word & 0xFFFFE000u : in % 2 ? word & 0xFFFF0000u : word << 16);
}

/* d += a b, with the matrices put together from the lanes that hold them: PTX ISA, "Matrix Fragments
 * for mma.m16n8k8" and "mma.m16n8k16". Thousands of these are a training step. */
template <bool bf16> void complete_mma(int base)
{
    typedef float row __attribute__((vector_size(8 * sizeof(float))));
    constexpr int K = bf16 ? 16 : 8, pack = bf16 ? 2 : 1; /* values in a word */
    float a[16][K];
    row b[K], d[16];
    for (int l = 0; l < WARP; l++) {
        const simt_fragments &lane =
            *(const simt_fragments *)(uintptr_t)block.threads[base + l].value;
        const int group = l / 4, in_group = l % 4;
        for (int i = 0; i < 4; i++) {
            d[group + i / 2 * 8][in_group * 2 + i % 2] = lane.d[i];
        }
        for (int v = 0; v < 4 * pack; v++) {
            const int i = v / pack, k = i / 2 * (K / 2) + in_group * pack + v % pack;
            a[group + i % 2 * 8][k] = mma_value<bf16>(lane.a[i], v);
        }
        for (int v = 0; v < 2 * pack; v++) {
            const int i = v / pack, k = i * (K / 2) + in_group * pack + v % pack;
            b[k][group] = mma_value<bf16>(lane.b[i], v);
        }
    }
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < K; k++) {
            d[i] += a[i][k] * b[k];
        }
    }
    for (int l = 0; l < WARP; l++) {
        const simt_fragments &lane =
            *(const simt_fragments *)(uintptr_t)block.threads[base + l].value;
        for (int i = 0; i < 4; i++) {
            lane.d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
        }
    }
}

/* The result of a warp's operation for each lane of the mask. */
void complete_warp(int base, unsigned mask, int self)
{
    const simt_warp_op op = block.threads[self].op;
    uint64_t in[WARP] = {}, all = 0;
    bool first = true;
    if (op == SIMT_OP_MMA_TF32 || op == SIMT_OP_MMA_BF16) {
        op == SIMT_OP_MMA_BF16 ? complete_mma<true>(base) : complete_mma<false>(base);
    }
    for (unsigned left = mask; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        uint64_t v = in[l] = block.threads[base + l].value;
        int64_t a = (int64_t)all, b = (int64_t)v;
        switch (op) {
        case SIMT_OP_BALLOT:
            all |= v << l;
            break;
        case SIMT_OP_MIN:
            all = first || b < a ? v : all;
            break;
        case SIMT_OP_MAX:
            all = first || b > a ? v : all;
            break;
        case SIMT_OP_AND:
            all = first ? v : all & v;
            break;
        case SIMT_OP_OR:
            all |= v;
            break;
        case SIMT_OP_XOR:
            all ^= v;
            break;
        default:
            all += v;
        }
        first = false;
    }
    for (unsigned left = mask; left; left &= left - 1) {
        thread &to = block.threads[base + __builtin_ctz(left)];
        if (op == SIMT_OP_SHUFFLE) {
            if (to.source >= WARP || !(mask >> to.source & 1)) {
                die_at("a shuffle reads a lane that is not in its mask",
                       base + __builtin_ctz(left));
            }
            to.value = in[to.source];
        } else if (op == SIMT_OP_MATCH) {
            const uint64_t mine = in[__builtin_ctz(left)];
            to.value = 0;
            for (unsigned other = mask; other; other &= other - 1) {
                int l = __builtin_ctz(other);
                to.value |= (uint64_t)(in[l] == mine) << l;
            }
        } else {
            to.value = all;
        }
    }
    block.warps[base / WARP].waiting &= ~mask;
    for (int i = 0; i < WARP; i++) {
        int l = set.order == SIMT_REVERSE ? WARP - 1 - i : i;
        if (mask >> l & 1 && base + l != self) {
            push_ready(base + l);
        }
    }
}

bool same_place(const thread &a, const thread &b)
{
    return a.op == b.op && a.mask == b.mask && a.line == b.line &&
           (a.file == b.file || strcmp(a.file, b.file) == 0);
}

} // namespace

void simt_barrier(const char *file, int line)
{
    simt_barrier_count(0, file, line);
}

int simt_barrier_count(int predicate, const char *file, int line)
{
    const int t = block.running;
    thread &me = block.threads[t];
    me.file = file;
    me.line = line;
    if (block.n_at_barrier == 0) {
        block.first_at_barrier = t;
    } else {
        const thread &first = block.threads[block.first_at_barrier];
        if (line != first.line || (file != first.file && strcmp(file, first.file) != 0)) {
            die_at("divergent barrier: threads wait at different ones", t);
        }
    }
    if (block.n_exited > 0) {
        die_at("divergent barrier: some threads have exited before it", t);
    }
    block.n_at_barrier++;
    block.barrier_votes += predicate;
    release(TAG_BARRIER);
    if (block.n_at_barrier == block.n_threads) {
        complete_barrier();
    } else {
        me.state = AT_BARRIER;
        wait_here();
    }
    acquire(TAG_BARRIER);
    return block.barrier_result;
}

uint64_t simt_warp(simt_warp_op op, unsigned mask, uint64_t value, unsigned source,
                   const char *file, int line)
{
    const int t = block.running, base = t / WARP * WARP;
    thread &me = block.threads[t];
    warp &w = block.warps[t / WARP];
    me.file = file;
    me.line = line;
    me.op = op;
    me.mask = mask;
    me.source = source;
    me.value = value;
    if (!(mask >> (t % WARP) & 1)) {
        die_at("a lane calls a warp operation whose mask leaves it out", t);
    }
    if (mask & ~w.present) {
        die_at("the mask of a warp operation names lanes that do not exist", t);
    }
    if (mask & w.exited) {
        die_at("the mask of a warp operation names lanes that have exited", t);
    }
    if (op == SIMT_OP_SYNC) {
        release(TAG_WARP(t / WARP)); /* the others order no memory */
    }
    w.waiting |= 1u << (t % WARP);
    bool complete = (w.waiting & mask) == mask;
    for (unsigned left = complete ? mask : 0; left && complete; left &= left - 1) {
        complete = same_place(block.threads[base + __builtin_ctz(left)], me);
    }
    if (complete) {
        complete_warp(base, mask, t);
    } else {
        me.state = AT_WARP;
        wait_here();
    }
    if (op == SIMT_OP_SYNC) {
        acquire(TAG_WARP(t / WARP));
    }
    return me.value;
}

void simt_grid_barrier(const char *file, int line)
{
    thread &me = block.threads[block.running];
    me.file = file;
    me.line = line;
    wait_for_grid();
}

unsigned simt_lane(void)
{
    return (unsigned)block.running % WARP;
}

unsigned simt_active(void)
{
    const warp &w = block.warps[block.running / WARP];
    return w.present & ~w.exited;
}

void *simt_dynamic_shared(void)
{
    return dynamic_shared;
}

void simt_fence(void)
{
    block.threads[block.running].fenced = true;
}

/* The release comes after the operation, so that it orders the operation itself as well. */
void simt_after_atomic(void *p)
{
    thread &me = block.threads[block.running];
    acquire(p);
    if (me.fenced) {
        release(p);
        me.fenced = false;
    }
}

[[noreturn]] void simt_trap(const char *what, const char *file, int line)
{
    if (block.running < 0) {
        die("%s at %s:%d", what, file, line);
    }
    thread &me = block.threads[block.running];
    me.file = file;
    me.line = line;
    die_at(what, block.running);
}
