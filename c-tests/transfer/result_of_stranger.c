/*
 * WSPGetOverlappedResult with a structure that was never posted, or posted on another socket, does
 * no harm: the real operation stays as it was and still completes once.
 * req: WSD-10
 */
#include "pair.h"

int main(void)
{
    struct op recv, send, stranger;
    struct pair one, two;
    struct area in, out;
    DWORD bytes, flags;

    case_begin("result_of_stranger");
    provider_start();
    pair_open(&one, AF_INET);
    pair_open(&two, AF_INET);
    in = area_open(one.b.s, 50, MEM_WRITE);
    out = area_open(one.a.s, 50, MEM_READ);
    for (int how = POLL; how <= NOTIFY; how++) {
        phase("a structure that was never posted");
        op_init(&stranger, (enum how)how);
        CHECK_WSA_IN(san_result(one.b.s, &stranger, false, &bytes, &flags), 0, WSAEINVAL,
                     WSA_IO_INCOMPLETE);
        stranger.ov.Internal = IN_PROGRESS;
        CHECK_WSA_IN(san_result(one.b.s, &stranger, false, &bytes, &flags), WSAEINVAL,
                     WSA_IO_INCOMPLETE);

        phase("an operation of another socket");
        op_init(&recv, (enum how)how);
        CHECK_WSA(san_recv_bytes(one.b.s, in.base, 50, &recv), WSA_IO_PENDING);
        for (int i = 0; i < 10; i++)
            CHECK_WSA_IN(san_result(two.a.s, &recv, false, &bytes, &flags), WSA_IO_INCOMPLETE,
                         WSAEINVAL);
        CHECK_WSA(san_result(one.b.s, &recv, false, &bytes, &flags), WSA_IO_INCOMPLETE);
        CHECK_EQ(op_upcalls(&recv), 0);

        pattern_fill(out.base, 50, 6);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(one.a.s, out.base, 50, &send));
        CHECK_OK(op_wait(one.a.s, &send));
        CHECK_OK(op_wait(one.b.s, &recv));
        pattern_check(in.base, 50, 6, "the message");
    }
    area_close(&in);
    area_close(&out);
    pair_exchange(&two);
    pair_close(&one);
    pair_close(&two);
    provider_stop();
    return 0;
}
