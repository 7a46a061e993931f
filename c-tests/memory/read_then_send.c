/*
 * Read, then send: a send issued after an RdmaRead does not reach the peer before the read has
 * taken the peer's data. The reader does not wait for the read; on receipt of the message the owner
 * deregisters the memory and overwrites it at once. Every read still brings the right bytes. Also
 * when a send that fails stands between the two.
 * req: WSD-14
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "pair.h"

enum { ROUNDS = 240, LENGTH = 500000, LARGE = 6000000, OFFSET = 1004, MESSAGE = 40 };

static struct pair pair;

struct offer {
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD descriptor_length;
    unsigned number; /* of the round, from 1 */
};

static struct offer offer;
static unsigned offered;

static DWORD length_of(unsigned round)
{
    /* Some larger than what a provider moves in one go. */
    if (round % 12 == 0)
        return LARGE - OFFSET;
    return round % 4 == 0 ? LENGTH - OFFSET : 1 + round * 104729 % (LENGTH - OFFSET);
}

/* Exposes memory, waits for "done", takes it back and spoils it. */
static void *owner(void *unused)
{
    struct area in = area_open(pair.b.s, MESSAGE, MEM_WRITE);
    struct memory memory = memory_new(LARGE);
    struct op recv;

    (void)unused;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        op_init(&recv, round % 2 ? POLL : NOTIFY);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base, MESSAGE, &recv));
        pattern_fill(memory.base + OFFSET, length_of(round), round);
        offer.descriptor_length = sizeof offer.descriptor;
        CHECK_OK(san_register_rdma(pair.b.s, memory.base, LARGE, MEM_READ, offer.descriptor,
                                   &offer.descriptor_length));
        offer.number = round;
        __atomic_store_n(&offered, round, __ATOMIC_RELEASE);

        CHECK_OK(op_wait(pair.b.s, &recv));
        CHECK_OK(san_deregister_rdma(pair.b.s, offer.descriptor, offer.descriptor_length));
        memset(memory.base, 0xDD, OFFSET + length_of(round));
    }
    memory_free(&memory);
    CHECK_OK(san_deregister(pair.b.s, in.handle));
    area_forget(&in);
    return NULL;
}

int main(void)
{
    struct op read, done, wrong;
    struct area target, message;
    struct memory plain;
    pthread_t thread;

    case_begin("read_then_send");
    provider_start();
    require_rdma_read();
    if (san.max_rdma < LARGE)
        skip("SO_MAX_RDMA_SIZE is only %u", san.max_rdma);
    pair_open(&pair, AF_INET);
    target = area_open(pair.a.s, LARGE, MEM_WRITE);
    message = area_open(pair.a.s, MESSAGE, MEM_READ);
    plain = memory_new(MESSAGE);
    CHECK_EQ(pthread_create(&thread, NULL, owner, NULL), 0);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        WSABUFEX piece = {length_of(round), (char *)target.base, target.handle};
        double begun = now_seconds();

        phase("round %u", round);
        while (__atomic_load_n(&offered, __ATOMIC_ACQUIRE) < round) {
            sched_yield();
            if (now_seconds() - begun > WAIT_SECONDS)
                fail("the owner does not go on");
        }
        op_init(&read, round % 3 ? POLL : NOTIFY);
        CHECK_POSTED(san_rdma_read(pair.a.s, &piece, 1, offer.descriptor, offer.descriptor_length,
                                   OFFSET, &read));
        if (round % 5 == 0) {
            op_init(&wrong, NOTIFY);
            CHECK_WSA(san_send_bytes(pair.a.s, plain.base, MESSAGE, &wrong), WSAEFAULT);
        }
        op_init(&done, POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, message.base, MESSAGE, &done));
        CHECK_OK(op_wait(pair.a.s, &read));
        CHECK_EQ(read.bytes, length_of(round));
        pattern_check(target.base, length_of(round), round, "the memory read");
        CHECK_OK(op_wait(pair.a.s, &done));
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    area_close(&target);
    area_close(&message);
    memory_free(&plain);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
