/*
 * Messages whose sends have completed before the close still arrive: the peer gets every one of
 * them, and only then the end of the connection.
 * req: WSD-11 WSD-14
 */
#include "pair.h"

enum { MESSAGES = 8, LENGTH = 150 };

static void run(void)
{
    struct op sends[MESSAGES], recvs[MESSAGES + 1];
    struct pair pair;
    struct area out, in;

    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, MESSAGES * LENGTH, MEM_READ);
    in = area_open(pair.b.s, (MESSAGES + 1) * LENGTH, MEM_WRITE);
    for (int i = 0; i <= MESSAGES; i++) {
        op_init(&recvs[i], i % 2 ? POLL : NOTIFY);
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base + i * LENGTH, LENGTH, &recvs[i]),
                  WSA_IO_PENDING);
    }
    for (int i = 0; i < MESSAGES; i++) {
        pattern_fill(out.base + i * LENGTH, LENGTH, (uint32_t)i);
        op_init(&sends[i], POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base + i * LENGTH, LENGTH, &sends[i]));
    }
    for (int i = 0; i < MESSAGES; i++)
        CHECK_OK(op_wait(pair.a.s, &sends[i]));
    endpoint_close(&pair.a);
    area_forget(&out);

    for (int i = 0; i < MESSAGES; i++) {
        phase("message %d after the close", i);
        CHECK_OK(op_wait(pair.b.s, &recvs[i]));
        CHECK_EQ(recvs[i].bytes, LENGTH);
        pattern_check(in.base + i * LENGTH, LENGTH, (uint32_t)i, "a message");
    }
    phase("the end");
    CHECK_WSA(op_wait(pair.b.s, &recvs[MESSAGES]), WSAECONNRESET);
    endpoint_close(&pair.b);
    area_forget(&in);
}

int main(void)
{
    case_begin("peer_close_after_data");
    provider_start();
    for (int i = 0; i < 10; i++)
        run();
    provider_stop();
    return 0;
}
