/*
 * While an operation goes on, WSPGetOverlappedResult without fWait says WSA_IO_INCOMPLETE, for
 * silent and for notified ones, from every thread; asking does not disturb it.
 * req: WSD-10
 */
#include <pthread.h>

#include "pair.h"

static struct pair pair;
static struct op receive;

static void *ask(void *unused)
{
    DWORD bytes, flags;

    (void)unused;
    for (int i = 0; i < 200; i++)
        CHECK_WSA(san_result(pair.b.s, &receive, false, &bytes, &flags), WSA_IO_INCOMPLETE);
    return NULL;
}

int main(void)
{
    struct area in, out;
    struct op send;
    pthread_t threads[3];

    case_begin("result_pending");
    provider_start();
    pair_open(&pair, AF_INET);
    in = area_open(pair.b.s, 100, MEM_WRITE);
    out = area_open(pair.a.s, 100, MEM_READ);
    for (int round = 0; round < 2; round++) {
        phase("a pending receive, %s", round == 0 ? "silent" : "notified");
        op_init(&receive, round == 0 ? POLL : NOTIFY);
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base, 100, &receive), WSA_IO_PENDING);
        CHECK_EQ(receive.ov.Internal, IN_PROGRESS);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, ask, NULL), 0);
        ask(NULL);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(op_upcalls(&receive), 0);
        CHECK_EQ(receive.ov.Internal, IN_PROGRESS);

        pattern_fill(out.base, 100, 5);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 100, &send));
        CHECK_OK(op_wait(pair.a.s, &send));
        CHECK_OK(op_wait(pair.b.s, &receive));
        CHECK_EQ(receive.bytes, 100);
        pattern_check(in.base, 100, 5, "the message");
    }
    area_close(&in);
    area_close(&out);
    pair_close(&pair);
    provider_stop();
    return 0;
}
