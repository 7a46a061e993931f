/*
 * The first message, up to 256 bytes, sent before the accepting side has posted any receive, is
 * kept and delivered whole, however late the receive is posted; the connection stays up.
 * req: WSD-09
 */
#include "pair.h"

static void run(DWORD length, unsigned late_ms, enum how how)
{
    struct pair pair;
    struct area out, in;
    struct op send, recv;

    pair_open(&pair, AF_INET);
    phase("a first message of %u bytes, the receive %u ms late", length, late_ms);
    out = area_open(pair.a.s, length, MEM_READ);
    pattern_fill(out.base, length, length);
    op_init(&send, how);
    CHECK_POSTED(san_send_bytes(pair.a.s, out.base, length, &send));
    if (late_ms > 0)
        sleep_ms(late_ms);

    /* Only now does the acceptor register memory and post it. */
    in = area_open(pair.b.s, 512, MEM_WRITE);
    op_init(&recv, how);
    CHECK_POSTED(san_recv_bytes(pair.b.s, in.base, 512, &recv));
    CHECK_OK(op_wait(pair.b.s, &recv));
    CHECK_EQ(recv.bytes, length);
    pattern_check(in.base, length, length, "the first message");
    bytes_check(in.base + length, 512 - length, 0, "the receive behind the first message");
    CHECK_OK(op_wait(pair.a.s, &send));
    CHECK_EQ(send.bytes, length);

    pair_exchange(&pair);
    area_close(&in);
    area_close(&out);
    pair_close(&pair);
}

int main(void)
{
    static const DWORD lengths[] = {1, 40, 255, 256};
    static const unsigned late[] = {0, 1, 100};

    case_begin("early_message");
    provider_start();
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (size_t k = 0; k < sizeof late / sizeof late[0]; k++)
            run(lengths[i], late[k], (i + k) % 2 == 0 ? POLL : NOTIFY);
    run(256, 2000, NOTIFY);
    provider_stop();
    return 0;
}
