/*
 * A message is gathered from its pieces and scattered into those of the receive, in order, from and
 * into different registrations. More pieces than the provider takes are WSAEINVAL and nothing is
 * sent.
 * req: WSD-10
 */
#include <stdio.h>

#include "pair.h"

enum { MOST = 8, ROOM = 300 };

/* Returns false when the provider does not take that many. */
static bool run(struct pair *pair, DWORD sent_pieces, DWORD received_pieces)
{
    struct area outs[MOST], ins[MOST];
    WSABUF from[MOST], to[MOST];
    struct op send, recv;
    DWORD total = 0, left, skipped = 0;
    int code;
    bool taken = true;

    phase("%u pieces into %u", sent_pieces, received_pieces);
    for (DWORD i = 0; i < sent_pieces; i++) {
        DWORD length = 1 + (i * 71 + sent_pieces * 13) % ROOM;

        outs[i] = area_open(pair->a.s, length, MEM_READ);
        pattern_fill_from(outs[i].base, length, 9, total);
        from[i].len = length;
        from[i].buf = (char *)outs[i].base;
        total += length;
    }
    left = total;
    for (DWORD i = 0; i < received_pieces; i++) {
        DWORD length = i + 1 == received_pieces ? left + 10 : left / 3 + 1;

        ins[i] = area_open(pair->b.s, length, MEM_WRITE);
        to[i].len = length;
        to[i].buf = (char *)ins[i].base;
        left -= left < length ? left : length;
    }

    op_init(&recv, POLL);
    op_init(&send, POLL);
    code = san_recv(pair->b.s, to, received_pieces, &recv);
    if (code == WSAEINVAL && received_pieces > 1) {
        taken = false;
    } else {
        CHECK_POSTED(code);
        code = san_send(pair->a.s, from, sent_pieces, &send);
        if (code == WSAEINVAL && sent_pieces > 1) {
            taken = false;
            op_init(&send, POLL);
            CHECK_POSTED(san_send(pair->a.s, from, 1, &send));
            total = from[0].len;
        } else {
            CHECK_POSTED(code);
        }
        CHECK_OK(op_wait(pair->a.s, &send));
        CHECK_OK(op_wait(pair->b.s, &recv));
        CHECK_EQ(send.bytes, total);
        CHECK_EQ(recv.bytes, total);
        for (DWORD i = 0; i < received_pieces; i++) {
            DWORD length = total - skipped < to[i].len ? total - skipped : to[i].len;

            pattern_check_from(ins[i].base, length, 9, skipped, "a piece");
            bytes_check(ins[i].base + length, to[i].len - length, 0, "behind the last byte");
            skipped += length;
        }
    }
    for (DWORD i = 0; i < sent_pieces; i++)
        area_close(&outs[i]);
    for (DWORD i = 0; i < received_pieces; i++)
        area_close(&ins[i]);
    return taken;
}

int main(void)
{
    struct pair pair;
    DWORD send_limit = MOST, recv_limit = MOST;

    case_begin("gather");
    provider_start();
    pair_open(&pair, AF_INET);
    for (DWORD i = MOST; i >= 1; i--) {
        if (!run(&pair, i, 1))
            send_limit = i - 1;
        else
            CHECK(i <= send_limit); /* what takes more takes fewer */
        if (!run(&pair, 1, i))
            recv_limit = i - 1;
        else
            CHECK(i <= recv_limit);
    }
    CHECK(send_limit >= 1 && recv_limit >= 1);
    for (DWORD i = 1; i <= send_limit; i++)
        for (DWORD k = 1; k <= recv_limit; k++)
            CHECK(run(&pair, i, k));
    printf("gather: up to %u pieces in a send, %u in a receive (of %d tried)\n", send_limit,
           recv_limit, MOST);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
