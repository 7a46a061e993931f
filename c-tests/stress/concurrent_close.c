/*
 * Both sides close at the same moment, with receives pending, again and again: no hang, every
 * receive ends once, every handle is given back. WSD_TEST_ROUNDS says how often, instead of ten
 * thousand times.
 * req: WSD-11
 */
#include <pthread.h>
#include <sched.h>

#include "pair.h"

enum { PENDING = 3, LENGTH = 64 };

static struct pair pair;
static unsigned rounds, round_number, closed;

static void *far_side(void *unused)
{
    (void)unused;
    for (unsigned i = 1; i <= rounds; i++) {
        while (__atomic_load_n(&round_number, __ATOMIC_ACQUIRE) < i)
            sched_yield();
        CHECK_OK(san_close(pair.b.s));
        __atomic_store_n(&closed, i, __ATOMIC_RELEASE);
    }
    return NULL;
}

int main(void)
{
    struct endpoint listener;
    pthread_t thread;

    case_begin("concurrent_close");
    rounds = rounds_or(10000);
    case_limit(110);
    switch_log_off();
    provider_start();
    endpoint_listen(&listener, AF_INET, 8);
    CHECK_EQ(pthread_create(&thread, NULL, far_side, NULL), 0);
    for (unsigned i = 1; i <= rounds; i++) {
        struct op near_ops[PENDING], far_ops[PENDING];
        struct area near_in, far_in;

        pair_open_through(&pair, &listener);
        phase("round %u", i);
        near_in = area_open(pair.a.s, LENGTH, MEM_WRITE);
        far_in = area_open(pair.b.s, LENGTH, MEM_WRITE);
        for (int k = 0; k < PENDING; k++) {
            op_init(&near_ops[k], k % 2 ? POLL : NOTIFY);
            op_init(&far_ops[k], k % 2 ? NOTIFY : POLL);
            CHECK_WSA(san_recv_bytes(pair.a.s, near_in.base, LENGTH, &near_ops[k]),
                      WSA_IO_PENDING);
            CHECK_WSA(san_recv_bytes(pair.b.s, far_in.base, LENGTH, &far_ops[k]), WSA_IO_PENDING);
        }
        __atomic_store_n(&round_number, i, __ATOMIC_RELEASE);
        CHECK_OK(san_close(pair.a.s));
        while (__atomic_load_n(&closed, __ATOMIC_ACQUIRE) < i)
            sched_yield();
        for (int k = 0; k < PENDING; k++) {
            CHECK_WSA_IN(op_wait_flushed(&near_ops[k]), WSA_OPERATION_ABORTED, WSAECONNRESET);
            CHECK_WSA_IN(op_wait_flushed(&far_ops[k]), WSA_OPERATION_ABORTED, WSAECONNRESET);
        }
        endpoint_forget(&pair.a);
        endpoint_forget(&pair.b);
        area_forget(&near_in);
        area_forget(&far_in);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
