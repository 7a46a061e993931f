/*
 * A thread that watches Internal, and finds the operation ended, may read the count, the error and
 * the received bytes: they were stored before. Another thread makes the progress.
 * req: WSD-10
 */
#include <pthread.h>
#include <sched.h>

#include "pair.h"

enum { MESSAGES = 3000, LENGTH = 64 };

static struct pair pair;
static struct area in;
static struct op receive, pump_op;
static unsigned stop, ready;

/* Asks for an operation that never ends: that, too, makes the socket progress. */
static void *pump(void *unused)
{
    DWORD bytes, flags;

    (void)unused;
    while (__atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0) {
        CHECK_WSA_IN(san_result(pair.b.s, &pump_op, false, &bytes, &flags), WSA_IO_INCOMPLETE,
                     WSAEINVAL);
        sched_yield();
    }
    return NULL;
}

static void *sender(void *unused)
{
    struct area out = area_open(pair.a.s, LENGTH, MEM_READ);
    struct op send;

    (void)unused;
    for (unsigned i = 0; i < MESSAGES; i++) {
        while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) <= i)
            sched_yield();
        pattern_fill(out.base, LENGTH, i);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 1 + i % LENGTH, &send));
        CHECK_OK(op_wait(pair.a.s, &send));
    }
    area_close(&out);
    return NULL;
}

int main(void)
{
    pthread_t pumping, sending;

    case_begin("publish_order");
    provider_start();
    pair_open(&pair, AF_INET);
    in = area_open(pair.b.s, LENGTH, MEM_WRITE);
    op_init(&pump_op, POLL);
    pump_op.ov.Internal = IN_PROGRESS;
    CHECK_EQ(pthread_create(&pumping, NULL, pump, NULL), 0);
    CHECK_EQ(pthread_create(&sending, NULL, sender, NULL), 0);
    for (unsigned i = 0; i < MESSAGES; i++) {
        double begun = now_seconds();

        phase("message %u", i);
        op_init(&receive, POLL);
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base, LENGTH, &receive), WSA_IO_PENDING);
        __atomic_store_n(&ready, i + 1, __ATOMIC_RELEASE);
        while (!op_ended(&receive)) {
            sched_yield();
            CHECK(now_seconds() - begun < WAIT_SECONDS);
        }
        CHECK_EQ(receive.ov.OffsetHigh, 0);
        CHECK_EQ(receive.ov.InternalHigh, 1 + i % LENGTH);
        pattern_check(in.base, 1 + i % LENGTH, i, "a message");
    }
    CHECK_EQ(pthread_join(sending, NULL), 0);
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_join(pumping, NULL), 0);
    area_close(&in);
    pair_close(&pair);
    provider_stop();
    return 0;
}
