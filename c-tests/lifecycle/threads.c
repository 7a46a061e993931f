/*
 * Eight threads on one connected socket, and eight on its peer: send, receive, ask for results,
 * register and deregister, all at once. Every message arrives once and whole.
 * req: WSD-10 WSD-12
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "pair.h"

enum { THREADS = 4, EACH = 400, LENGTH = 100 };

static struct pair pair;
static unsigned char seen[2][THREADS][EACH];
static unsigned received[2], stopped;

struct worker {
    pthread_t thread;
    int side, number;
};

static struct endpoint *endpoint_of(int side)
{
    return side == 0 ? &pair.a : &pair.b;
}

static void *sender(void *argument)
{
    struct worker *self = argument;
    SOCKET s = endpoint_of(self->side)->s;
    struct area out = area_open(s, LENGTH, MEM_READ);

    for (int i = 0; i < EACH; i++) {
        struct op op;
        int code;

        pattern_fill(out.base, LENGTH, (uint32_t)(self->number * EACH + i));
        memcpy(out.base, &self->number, sizeof self->number);
        memcpy(out.base + 4, &i, sizeof i);
        do { /* the others may have filled the queue */
            op_init(&op, i % 2 ? POLL : NOTIFY);
            code = san_send_bytes(s, out.base, LENGTH, &op);
            if (code == WSAEWOULDBLOCK || code == WSAENOBUFS)
                sched_yield();
        } while (code == WSAEWOULDBLOCK || code == WSAENOBUFS);
        CHECK_POSTED(code);
        CHECK_OK(op_wait(s, &op));
    }
    area_close(&out);
    return NULL;
}

static void *receiver(void *argument)
{
    struct worker *self = argument;
    SOCKET s = endpoint_of(self->side)->s;
    struct area in = area_open(s, LENGTH, MEM_WRITE);

    /* The receives of all threads together are as many as there are messages. */
    for (int i = 0; i < EACH; i++) {
        int number, sequence;
        struct op op;

        op_init(&op, i % 2 ? NOTIFY : POLL);
        CHECK_POSTED(san_recv_bytes(s, in.base, LENGTH, &op));
        CHECK_OK(op_wait(s, &op));
        CHECK_EQ(op.bytes, LENGTH);
        memcpy(&number, in.base, sizeof number);
        memcpy(&sequence, in.base + 4, sizeof sequence);
        CHECK(number >= 0 && number < THREADS && sequence >= 0 && sequence < EACH);
        pattern_check_from(in.base + 8, LENGTH - 8, (uint32_t)(number * EACH + sequence), 8,
                           "a message");
        if (__atomic_exchange_n(&seen[self->side][number][sequence], 1, __ATOMIC_RELAXED) != 0)
            fail("message %d of sender %d came twice", sequence, number);
        __atomic_fetch_add(&received[self->side], 1, __ATOMIC_RELAXED);
    }
    area_close(&in);
    return NULL;
}

/* Registers, deregisters and asks, as long as the others work. */
static void *meddler(void *argument)
{
    struct worker *self = argument;
    SOCKET s = endpoint_of(self->side)->s;
    struct memory memory = memory_new(5000);

    while (__atomic_load_n(&stopped, __ATOMIC_ACQUIRE) == 0) {
        unsigned char descriptor[DESCRIPTOR_ROOM];
        DWORD length = sizeof descriptor, value;
        int size = (int)sizeof value;
        HANDLE handle;

        CHECK_OK(san_register(s, memory.base, 5000, MEM_READ, &handle));
        CHECK_OK(san_register_rdma(s, memory.base, 5000, MEM_READ, descriptor, &length));
        CHECK_WSA_IN(san_getsockopt(s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, &value, &size), 0,
                     WSAENOPROTOOPT);
        CHECK_OK(san_deregister_rdma(s, descriptor, length));
        CHECK_OK(san_deregister(s, handle));
        sched_yield();
    }
    memory_free(&memory);
    return NULL;
}

int main(void)
{
    struct worker senders[2][THREADS], receivers[2][THREADS], meddlers[2];

    case_begin("threads");
    provider_start();
    pair_open(&pair, AF_INET);
    phase("%d threads at work", 4 * THREADS + 2);
    for (int side = 0; side < 2; side++) {
        meddlers[side].side = side;
        CHECK_EQ(pthread_create(&meddlers[side].thread, NULL, meddler, &meddlers[side]), 0);
        for (int i = 0; i < THREADS; i++) {
            receivers[side][i].side = senders[side][i].side = side;
            receivers[side][i].number = senders[side][i].number = i;
            CHECK_EQ(pthread_create(&receivers[side][i].thread, NULL, receiver,
                                    &receivers[side][i]),
                     0);
            CHECK_EQ(pthread_create(&senders[side][i].thread, NULL, sender, &senders[side][i]), 0);
        }
    }
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < THREADS; i++) {
            CHECK_EQ(pthread_join(senders[side][i].thread, NULL), 0);
            CHECK_EQ(pthread_join(receivers[side][i].thread, NULL), 0);
        }
    __atomic_store_n(&stopped, 1, __ATOMIC_RELEASE);
    for (int side = 0; side < 2; side++) {
        CHECK_EQ(pthread_join(meddlers[side].thread, NULL), 0);
        CHECK_EQ(received[side], THREADS * EACH);
    }
    pair_close(&pair);
    provider_stop();
    return 0;
}
