/*
 * fWait waits for the end of the operation, silent or notified, also when the end is that the
 * socket is closed by another thread or that the peer goes.
 * req: WSD-10 WSD-11
 */
#include <pthread.h>

#include "pair.h"

static struct pair pair;
static struct op receive;

/* Waits and returns the code. */
static void *wait_for_it(void *unused)
{
    DWORD bytes = 0, flags = 0;
    int code;

    (void)unused;
    code = san_result(pair.b.s, &receive, true, &bytes, &flags);
    if (code == 0)
        CHECK_EQ(bytes, 60);
    return (void *)(intptr_t)code;
}

static int finish(pthread_t thread)
{
    void *code;

    CHECK_EQ(pthread_join(thread, &code), 0);
    return (int)(intptr_t)code;
}

int main(void)
{
    struct area in, out;
    struct op send;
    pthread_t thread;

    case_begin("result_wait");
    provider_start();
    for (int how = POLL; how <= NOTIFY; how++) {
        pair_open(&pair, AF_INET);
        in = area_open(pair.b.s, 60, MEM_WRITE);
        out = area_open(pair.a.s, 60, MEM_READ);
        for (int round = 0; round < 5; round++) {
            phase("waiting for a message, %s", how == POLL ? "silent" : "notified");
            op_init(&receive, (enum how)how);
            CHECK_WSA(san_recv_bytes(pair.b.s, in.base, 60, &receive), WSA_IO_PENDING);
            CHECK_EQ(pthread_create(&thread, NULL, wait_for_it, NULL), 0);
            sleep_ms(20 * (unsigned)round);
            op_init(&send, POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 60, &send));
            CHECK_OK(finish(thread));
            CHECK_OK(op_wait(pair.b.s, &receive));
            CHECK_OK(op_wait(pair.a.s, &send));
        }
        phase("waiting while the peer goes");
        op_init(&receive, (enum how)how);
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base, 60, &receive), WSA_IO_PENDING);
        CHECK_EQ(pthread_create(&thread, NULL, wait_for_it, NULL), 0);
        sleep_ms(50);
        endpoint_close(&pair.a);
        CHECK_WSA(finish(thread), WSAECONNRESET);
        area_forget(&out);
        endpoint_close(&pair.b);
        area_forget(&in);

        phase("waiting while the socket is closed");
        pair_open(&pair, AF_INET);
        in = area_open(pair.b.s, 60, MEM_WRITE);
        op_init(&receive, (enum how)how);
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base, 60, &receive), WSA_IO_PENDING);
        CHECK_EQ(pthread_create(&thread, NULL, wait_for_it, NULL), 0);
        sleep_ms(50);
        CHECK_OK(san_close(pair.b.s));
        CHECK_WSA_IN(finish(thread), WSA_OPERATION_ABORTED, WSAENOTSOCK);
        CHECK_WSA(op_wait_flushed(&receive), WSA_OPERATION_ABORTED);
        endpoint_forget(&pair.b);
        area_forget(&in);
        endpoint_close(&pair.a);
    }
    provider_stop();
    return 0;
}
