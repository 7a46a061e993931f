/*
 * A message larger than the posted receive: the receive ends with WSAEMSGSIZE, no byte outside it
 * is written, and nothing hangs on either side.
 * req: WSD-10
 */
#include "pair.h"

enum { SENT = 1000, ROOM = 600, AREA = 2000 };

static void run(enum how how)
{
    struct op send, recv, second, third;
    struct area out, in, back;
    struct pair pair;
    int code;

    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, SENT, MEM_READ);
    in = area_open(pair.b.s, AREA, MEM_WRITE);
    back = area_open(pair.a.s, SENT, MEM_WRITE);
    pattern_fill(out.base, SENT, 1);
    op_init(&recv, how);
    op_init(&second, how);
    op_init(&third, how);
    op_init(&send, POLL);
    CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + 100, ROOM, &recv));
    CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + 100 + ROOM, ROOM, &second));
    CHECK_POSTED(san_recv_bytes(pair.a.s, back.base, SENT, &third));
    code = san_send_bytes(pair.a.s, out.base, SENT, &send);
    CHECK_POSTED(code);
    phase("waiting for the receive that is too small");
    CHECK_WSA(op_wait(pair.b.s, &recv), WSAEMSGSIZE);
    bytes_check(in.base, 100, 0, "before the receive");
    bytes_check(in.base + 100 + ROOM, AREA - 100 - ROOM, 0, "behind the receive");

    phase("the send ends one way or the other");
    CHECK_WSA_IN(op_wait(pair.a.s, &send), 0, WSAECONNRESET, WSAECONNABORTED, WSAEMSGSIZE);
    /* The next receive must not get the tail of the message as if it were one. */
    phase("closing");
    CHECK_OK(san_close(pair.b.s));
    CHECK_WSA_IN(op_wait_flushed(&second), WSA_OPERATION_ABORTED, WSAECONNABORTED, WSAECONNRESET);
    CHECK_WSA_IN(op_wait(pair.a.s, &third), WSAECONNRESET, WSAECONNABORTED);
    endpoint_forget(&pair.b);
    endpoint_close(&pair.a);
    area_forget(&out);
    area_forget(&in);
    area_forget(&back);
}

int main(void)
{
    case_begin("receive_too_small");
    provider_start();
    run(POLL);
    run(NOTIFY);
    provider_stop();
    return 0;
}
