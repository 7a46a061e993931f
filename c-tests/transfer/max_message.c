/*
 * A message of SO_MAX_MSG_SIZE passes; one byte more is WSAEMSGSIZE, nothing of it is sent, and the
 * connection goes on.
 * req: WSD-10 WSD-20
 */
#include "pair.h"

int main(void)
{
    struct pair pair;
    struct area out, in;
    struct op send, recv;
    DWORD most;

    case_begin("max_message");
    provider_start();
    most = san.max_message;
    if (most > 64u << 20)
        skip("SO_MAX_MSG_SIZE is %u: more than this case tries", most);
    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, most + 1, MEM_READ);
    in = area_open(pair.b.s, most + 1, MEM_WRITE);
    pattern_fill(out.base, most + 1, 3);

    for (int i = 0; i < 3; i++) {
        phase("one byte too many");
        op_init(&recv, POLL);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base, most + 1, &recv));
        op_init(&send, NOTIFY);
        CHECK_WSA(san_send_bytes(pair.a.s, out.base, most + 1, &send), WSAEMSGSIZE);
        phase("exactly the most");
        op_init(&send, NOTIFY);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base + 1, most, &send));
        CHECK_OK(op_wait(pair.a.s, &send));
        CHECK_OK(op_wait(pair.b.s, &recv));
        CHECK_EQ(recv.bytes, most);
        pattern_check_from(in.base, most, 3, 1, "the largest message");
        CHECK_EQ(in.base[most], 0);
        phase("the least");
        message_pass(&pair.a, &pair.b, 1, 4);
    }
    area_close(&in);
    area_close(&out);
    pair_close(&pair);
    provider_stop();
    return 0;
}
