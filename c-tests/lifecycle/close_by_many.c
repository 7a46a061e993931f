/*
 * Several threads close one socket at once: one succeeds, the others get WSAENOTSOCK, and the
 * switch handle is given back once. Threads that use it meanwhile get an error, never a crash.
 * req: WSD-11
 */
#include <pthread.h>
#include <sched.h>

#include "pair.h"

enum { THREADS = 4, ROUNDS = 50, PENDING = 4, LENGTH = 64 };

static struct pair pair;
static struct area in;
static unsigned closed, go;

static void *closer(void *unused)
{
    int code;

    (void)unused;
    while (__atomic_load_n(&go, __ATOMIC_ACQUIRE) == 0)
        sched_yield();
    code = san_close(pair.a.s);
    CHECK_WSA_IN(code, 0, WSAENOTSOCK);
    if (code == 0)
        __atomic_fetch_add(&closed, 1, __ATOMIC_RELAXED);
    return NULL;
}

static void *user(void *argument)
{
    struct op *op = argument;
    int code;

    while (__atomic_load_n(&go, __ATOMIC_ACQUIRE) == 0)
        sched_yield();
    op_init(op, NOTIFY);
    code = san_recv_bytes(pair.a.s, in.base, LENGTH, op);
    CHECK_WSA_IN(code, WSA_IO_PENDING, WSAENOTSOCK, WSA_OPERATION_ABORTED, WSAECONNRESET,
                 WSAECONNABORTED, WSAENOTCONN, WSAEFAULT);
    return NULL;
}

int main(void)
{
    case_begin("close_by_many");
    provider_start();
    for (int round = 0; round < ROUNDS; round++) {
        struct op recvs[PENDING], late[THREADS];
        pthread_t closers[THREADS], users[THREADS];

        phase("round %d", round);
        pair_open(&pair, AF_INET);
        in = area_open(pair.a.s, LENGTH, MEM_WRITE);
        closed = go = 0;
        for (int i = 0; i < PENDING; i++) {
            op_init(&recvs[i], i % 2 ? POLL : NOTIFY);
            CHECK_WSA(san_recv_bytes(pair.a.s, in.base, LENGTH, &recvs[i]), WSA_IO_PENDING);
        }
        for (int i = 0; i < THREADS; i++) {
            CHECK_EQ(pthread_create(&closers[i], NULL, closer, NULL), 0);
            CHECK_EQ(pthread_create(&users[i], NULL, user, &late[i]), 0);
        }
        __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
        for (int i = 0; i < THREADS; i++) {
            CHECK_EQ(pthread_join(closers[i], NULL), 0);
            CHECK_EQ(pthread_join(users[i], NULL), 0);
        }
        CHECK_EQ(closed, 1);
        for (int i = 0; i < PENDING; i++)
            CHECK_WSA(op_wait_flushed(&recvs[i]), WSA_OPERATION_ABORTED);
        for (int i = 0; i < THREADS; i++)
            if (late[i].posted == WSA_IO_PENDING)
                CHECK_WSA(op_wait_flushed(&late[i]), WSA_OPERATION_ABORTED);
            else
                CHECK_EQ(op_upcalls(&late[i]), 0);
        endpoint_forget(&pair.a);
        endpoint_close(&pair.b);
        area_forget(&in);
    }
    provider_stop();
    return 0;
}
