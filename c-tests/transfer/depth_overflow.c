/*
 * More receives, and more sends, than the provider takes: it says that there is no room now, which is
 * not that the network is down; nothing was started by it, and when there is room again everything goes
 * on in order.
 * req: WSD-09 WSD-10
 */
#include <stdlib.h>

#include "pair.h"

enum { MOST = 100000, LENGTH = 16, BATCH = 16 };

#define CHECK_FULL(code) CHECK_WSA_IN(code, WSAEWOULDBLOCK, WSAENOBUFS)

static struct op *recvs, *sends;

/* Posts until it is full; returns how many were taken. */
static int fill_receives(SOCKET s, struct area *in)
{
    for (int i = 0; i < MOST; i++) {
        int code;

        op_init(&recvs[i], NOTIFY);
        code = san_recv_bytes(s, in->base + i * LENGTH, LENGTH, &recvs[i]);
        if (code != WSA_IO_PENDING) {
            CHECK_FULL(code);
            return i;
        }
    }
    absent("takes any number of receives");
}

static int fill_sends(SOCKET s, struct area *out)
{
    for (int i = 0; i < MOST; i++) {
        int code;

        pattern_fill(out->base + i * LENGTH, LENGTH, (uint32_t)i);
        op_init(&sends[i], NOTIFY);
        code = san_send_bytes(s, out->base + i * LENGTH, LENGTH, &sends[i]);
        if (code != 0 && code != WSA_IO_PENDING) {
            CHECK_FULL(code);
            return i;
        }
    }
    absent("takes any number of sends");
}

int main(void)
{
    struct pair pair;
    struct area in, out;
    int depth, taken;
    struct op again;

    case_begin("depth_overflow");
    provider_start();
    recvs = calloc(MOST, sizeof *recvs);
    sends = calloc(MOST, sizeof *sends);
    CHECK(recvs != NULL && sends != NULL);
    pair_open(&pair, AF_INET);
    in = area_open(pair.b.s, MOST * LENGTH, MEM_WRITE);
    out = area_open(pair.a.s, MOST * LENGTH, MEM_READ);

    phase("filling the receive queue");
    depth = fill_receives(pair.b.s, &in);
    CHECK(depth >= 12); /* what the switch posts */
    for (int i = 0; i < 5; i++) {
        op_init(&recvs[depth], NOTIFY);
        CHECK_FULL(san_recv_bytes(pair.b.s, in.base + depth * LENGTH, LENGTH, &recvs[depth]));
    }
    phase("emptying it again, %d receives", depth);
    for (int i = 0, count = 1; i < depth; i += count) {
        /* The first one alone. */
        count = i == 0 ? 1 : depth - i < BATCH ? depth - i : BATCH;
        for (int k = 0; k < count; k++) {
            pattern_fill(out.base + k * LENGTH, LENGTH, (uint32_t)(i + k));
            op_init(&sends[k], POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, out.base + k * LENGTH, LENGTH, &sends[k]));
        }
        for (int k = 0; k < count; k++) {
            CHECK_OK(op_wait(pair.a.s, &sends[k]));
            CHECK_OK(op_wait(pair.b.s, &recvs[i + k]));
            pattern_check(in.base + (i + k) * LENGTH, LENGTH, (uint32_t)(i + k), "a message");
        }
        if (i == 0) {
            phase("room for one more");
            op_init(&again, NOTIFY);
            CHECK_WSA(san_recv_bytes(pair.b.s, in.base + depth * LENGTH, LENGTH, &again),
                      WSA_IO_PENDING);
            op_init(&recvs[depth + 1], NOTIFY);
            CHECK_FULL(san_recv_bytes(pair.b.s, in.base + (depth + 1) * LENGTH, LENGTH,
                                      &recvs[depth + 1]));
        }
    }
    CHECK_EQ(op_upcalls(&recvs[depth]), 0);
    message_pass(&pair.b, &pair.a, 20, 1);
    /* The one that is left takes the next message. */
    pattern_fill(out.base, LENGTH, 999);
    op_init(&sends[0], POLL);
    CHECK_POSTED(san_send_bytes(pair.a.s, out.base, LENGTH, &sends[0]));
    CHECK_OK(op_wait(pair.a.s, &sends[0]));
    CHECK_OK(op_wait(pair.b.s, &again));
    pattern_check(in.base + depth * LENGTH, LENGTH, 999, "the message of the last receive");

    phase("filling the send queue: the peer posts nothing");
    taken = fill_sends(pair.a.s, &out);
    CHECK(taken >= 12);
    phase("taking all %d messages", taken);
    for (int i = 0, count; i < taken; i += count) {
        count = taken - i < BATCH ? taken - i : BATCH;
        for (int k = 0; k < count; k++) {
            op_init(&recvs[k], POLL);
            CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + k * LENGTH, LENGTH, &recvs[k]));
        }
        for (int k = 0; k < count; k++) {
            CHECK_OK(op_wait(pair.b.s, &recvs[k]));
            pattern_check(in.base + k * LENGTH, LENGTH, (uint32_t)(i + k), "a message");
        }
    }
    for (int i = 0; i < taken; i++)
        CHECK_OK(op_wait(pair.a.s, &sends[i]));
    CHECK_EQ(op_upcalls(&sends[taken]), 0);
    area_close(&in);
    area_close(&out);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
