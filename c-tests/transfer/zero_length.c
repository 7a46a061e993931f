/*
 * A message of no bytes is refused with an error, or it is a message like any other: one receive,
 * 0 bytes, in its place among the others.
 * req: WSD-10
 */
#include "pair.h"

int main(void)
{
    struct op sends[3], recvs[3];
    struct pair pair;
    struct area out, in;
    WSABUF nothing;
    int code;

    case_begin("zero_length");
    provider_start();
    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, 32, MEM_READ);
    in = area_open(pair.b.s, 3 * 32, MEM_WRITE);
    pattern_fill(out.base, 32, 1);
    for (int variant = 0; variant < 3; variant++) {
        phase("no bytes, variant %d", variant);
        nothing.len = 0;
        nothing.buf = variant == 2 ? NULL : (char *)out.base;
        for (int i = 0; i < 3; i++) {
            op_init(&recvs[i], POLL);
            op_init(&sends[i], POLL);
            CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + 32 * i, 32, &recvs[i]));
        }
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 32, &sends[0]));
        code = san_send(pair.a.s, &nothing, variant == 1 ? 0 : 1, &sends[1]);
        CHECK_WSA_IN(code, 0, WSA_IO_PENDING, WSAEINVAL, WSAEFAULT, WSAEMSGSIZE, WSAEOPNOTSUPP);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 31, &sends[2]));
        CHECK_OK(op_wait(pair.b.s, &recvs[0]));
        CHECK_EQ(recvs[0].bytes, 32);
        if (code == 0 || code == WSA_IO_PENDING) {
            CHECK_OK(op_wait(pair.a.s, &sends[1]));
            CHECK_OK(op_wait(pair.b.s, &recvs[1]));
            CHECK_EQ(recvs[1].bytes, 0);
        } else {
            /* The third message takes the second receive; one more fills the third. */
            CHECK_OK(op_wait(pair.b.s, &recvs[1]));
            CHECK_EQ(recvs[1].bytes, 31);
            CHECK_OK(op_wait(pair.a.s, &sends[2]));
            op_init(&sends[2], POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 31, &sends[2]));
        }
        CHECK_OK(op_wait(pair.b.s, &recvs[2]));
        CHECK_EQ(recvs[2].bytes, 31);
        CHECK_OK(op_wait(pair.a.s, &sends[0]));
        CHECK_OK(op_wait(pair.a.s, &sends[2]));
    }
    area_close(&in);
    area_close(&out);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
