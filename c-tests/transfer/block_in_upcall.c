/*
 * While a completion upcall blocks, its socket can be closed by another thread: the close does not
 * wait for the upcall for ever, no other upcall of the socket is lost, and WPUCloseSocketHandle
 * comes only when the upcall has returned. Silent operations of other sockets go on meanwhile.
 * req: WSD-10 WSD-11
 */
#include <pthread.h>

#include "pair.h"

enum { PENDING = 5, LENGTH = 64 };

static unsigned entered, released;

static void block(struct op *op, void *context)
{
    double begun = now_seconds();

    (void)op;
    (void)context;
    __atomic_store_n(&entered, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&released, __ATOMIC_ACQUIRE) == 0) {
        sleep_ms(1);
        CHECK(now_seconds() - begun < WAIT_SECONDS);
    }
}

static void *close_it(void *socket)
{
    CHECK_OK(san_close(*(SOCKET *)socket));
    return NULL;
}

int main(void)
{
    struct op recvs[PENDING], send;
    struct pair pair, other;
    struct area in, out;
    pthread_t closer;
    double begun;

    case_begin("block_in_upcall");
    provider_start();
    pair_open(&pair, AF_INET);
    pair_open(&other, AF_INET);
    in = area_open(pair.b.s, PENDING * LENGTH, MEM_WRITE);
    out = area_open(pair.a.s, LENGTH, MEM_READ);
    for (int i = 0; i < PENDING; i++) {
        op_init(&recvs[i], NOTIFY);
        if (i == 0)
            recvs[i].then = block;
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base + i * LENGTH, LENGTH, &recvs[i]),
                  WSA_IO_PENDING);
    }
    op_init(&send, POLL);
    CHECK_POSTED(san_send_bytes(pair.a.s, out.base, LENGTH, &send));
    begun = now_seconds();
    phase("waiting for the upcall");
    while (__atomic_load_n(&entered, __ATOMIC_ACQUIRE) == 0) {
        sleep_ms(1);
        CHECK(now_seconds() - begun < WAIT_SECONDS);
    }

    phase("another socket while an upcall blocks");
    pair_exchange(&other);

    phase("closing the socket while its upcall blocks");
    CHECK_EQ(pthread_create(&closer, NULL, close_it, &pair.b.s), 0);
    sleep_ms(300);
    CHECK_EQ(switch_count(UPCALL_CLOSE_HANDLE, pair.b.handle), 0);
    __atomic_store_n(&released, 1, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_join(closer, NULL), 0);
    CHECK_OK(op_wait_flushed(&recvs[0]));
    for (int i = 1; i < PENDING; i++)
        CHECK_WSA(op_wait_flushed(&recvs[i]), WSA_OPERATION_ABORTED);
    endpoint_forget(&pair.b);
    area_forget(&in);
    endpoint_close(&pair.a);
    area_forget(&out);
    pair_exchange(&other);
    pair_close(&other);
    provider_stop();
    return 0;
}
