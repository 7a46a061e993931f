/*
 * Write, then send: all data of an RdmaWrite is in the peer's memory before a send that was issued
 * later is delivered. The writer does not wait for the write; the owner looks on receipt. Under
 * load, with pieces and offsets.
 * req: WSD-14
 */
#include <pthread.h>

#include "pair.h"

enum { ROUNDS = 1500, LENGTH = 90000, SLOTS = 4, PIECES = 4 };

static struct pair pair;
static struct window windows[SLOTS];
static unsigned taken; /* rounds that the owner has looked at */

static DWORD offset_of(unsigned round)
{
    return round * 37 % 500;
}

static DWORD length_of(unsigned round)
{
    return round % 3 == 0 ? LENGTH - 500 : 1 + round * 7919 % (LENGTH - 500);
}

static void *owner(void *unused)
{
    struct area in = area_open(pair.b.s, SLOTS * 4, MEM_WRITE);
    static struct op recvs[SLOTS]; /* some stay pending until the socket is closed */

    (void)unused;
    for (unsigned i = 0; i < SLOTS; i++) {
        op_init(&recvs[i], POLL);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + i * 4, 4, &recvs[i]));
    }
    __atomic_store_n(&taken, 1, __ATOMIC_RELEASE); /* the receives are posted */
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned slot = round % SLOTS;

        CHECK_OK(op_wait(pair.b.s, &recvs[slot]));
        pattern_check(windows[slot].base + offset_of(round), length_of(round), round,
                      "the written memory on receipt of the message");
        op_init(&recvs[slot], POLL);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + slot * 4, 4, &recvs[slot]));
        __atomic_store_n(&taken, round + 2, __ATOMIC_RELEASE);
    }
    return NULL;
}

int main(void)
{
    struct op writes[SLOTS], sends[SLOTS];
    struct area out;
    pthread_t thread;

    case_begin("write_then_send");
    provider_start();
    if (san.max_rdma < LENGTH)
        skip("SO_MAX_RDMA_SIZE is only %u", san.max_rdma);
    pair_open(&pair, AF_INET);
    for (int i = 0; i < SLOTS; i++)
        windows[i] = window_open(pair.b.s, LENGTH, MEM_WRITE);
    out = area_open(pair.a.s, SLOTS * LENGTH, MEM_READ);
    CHECK_EQ(pthread_create(&thread, NULL, owner, NULL), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned slot = round % SLOTS;
        unsigned char *at = out.base + slot * LENGTH;
        DWORD length = length_of(round), part = length / PIECES;
        WSABUFEX pieces[PIECES];
        DWORD count = length < 1000 ? 1 : PIECES;
        double begun = now_seconds();

        phase("round %u", round);
        /* The slot is free when the owner has looked at its last use. */
        while (__atomic_load_n(&taken, __ATOMIC_ACQUIRE) + SLOTS < round + 2) {
            sleep_ms(1);
            if (now_seconds() - begun > WAIT_SECONDS)
                fail("the owner does not go on");
        }
        while (round == 0 && __atomic_load_n(&taken, __ATOMIC_ACQUIRE) == 0)
            sleep_ms(1);
        if (round >= SLOTS) {
            CHECK_OK(op_wait(pair.a.s, &writes[slot]));
            CHECK_OK(op_wait(pair.a.s, &sends[slot]));
        }
        pattern_fill(at, length, round);
        for (DWORD i = 0; i < count; i++) {
            pieces[i].buf = (char *)at + i * part;
            pieces[i].len = i + 1 == count ? length - i * part : part;
            pieces[i].handle = out.handle;
        }
        op_init(&writes[slot], round % 2 ? POLL : NOTIFY);
        CHECK_POSTED(san_rdma_write(pair.a.s, pieces, count, windows[slot].descriptor,
                                    windows[slot].descriptor_length, offset_of(round),
                                    &writes[slot]));
        op_init(&sends[slot], round % 3 ? POLL : NOTIFY);
        CHECK_POSTED(san_send_bytes(pair.a.s, at, 4, &sends[slot]));
    }
    phase("the last rounds");
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < SLOTS; i++) {
        CHECK_OK(op_wait(pair.a.s, &writes[i]));
        CHECK_OK(op_wait(pair.a.s, &sends[i]));
    }
    pair_close(&pair);
    area_forget(&out);
    for (int i = 0; i < SLOTS; i++)
        window_forget(&windows[i]);
    provider_stop();
    return 0;
}
