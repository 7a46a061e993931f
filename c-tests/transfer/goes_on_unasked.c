/*
 * What was started goes on by itself: nobody asks for the silent sends and writes of one side, and
 * still all of them arrive, more than any queue or ring between the two holds. Only the receives of
 * the other side are notified.
 * req: WSD-10 WSD-14
 */
#include "pair.h"

enum { MESSAGES = 48, LARGE = 300000, ROUNDS = 5 };

static void messages(DWORD length)
{
    static struct op sends[MESSAGES], recvs[MESSAGES];
    struct area out, in;
    struct pair pair;
    int posted = 0;

    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, length, MEM_READ);
    in = area_open(pair.b.s, length, MEM_WRITE);
    pattern_fill(out.base, length, length);
    for (; posted < MESSAGES; posted++) {
        int code;

        op_init(&sends[posted], POLL);
        code = san_send_bytes(pair.a.s, out.base, length, &sends[posted]);
        if (code == WSAEWOULDBLOCK || code == WSAENOBUFS || code == WSAENETDOWN)
            break; /* as many as it takes */
        CHECK_POSTED(code);
    }
    for (int i = 0; i < posted; i++) {
        phase("message %d of %d of %u bytes", i, posted, length);
        op_init(&recvs[i], NOTIFY);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base, length, &recvs[i]));
        CHECK_OK(op_wait(pair.b.s, &recvs[i]));
        CHECK_EQ(recvs[i].bytes, length);
        pattern_check(in.base, length, length, "a message");
    }
    for (int i = 0; i < posted; i++)
        CHECK_OK(op_wait(pair.a.s, &sends[i]));
    area_close(&out);
    area_close(&in);
    pair_close(&pair);
}

/* A silent transfer and a silent message behind it; the peer waits for the message. */
static void behind_rdma(bool read)
{
    struct area area, message, in;
    struct op rdma, send, recv;
    struct window window;
    struct pair pair;

    pair_open(&pair, AF_INET);
    window = window_open(pair.b.s, LARGE, MEM_READWRITE);
    area = area_open(pair.a.s, LARGE, MEM_READWRITE);
    message = area_open(pair.a.s, 8, MEM_READ);
    in = area_open(pair.b.s, 8, MEM_WRITE);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        phase("a message behind a %s, round %u", read ? "read" : "write", round);
        op_init(&recv, NOTIFY);
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base, 8, &recv), WSA_IO_PENDING);
        pattern_fill(read ? window.base : area.base, LARGE, round);
        op_init(&rdma, POLL);
        CHECK_POSTED(read ? area_read(&area, 0, LARGE, &window, 0, &rdma)
                          : area_write(&area, 0, LARGE, &window, 0, &rdma));
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, message.base, 8, &send));
        CHECK_OK(op_wait(pair.b.s, &recv));
        if (!read)
            pattern_check(window.base, LARGE, round, "the written memory");
        CHECK_OK(op_wait(pair.a.s, &rdma));
        CHECK_OK(op_wait(pair.a.s, &send));
        pattern_check(area.base, LARGE, round, "the local memory");
    }
    area_close(&area);
    area_close(&message);
    area_close(&in);
    window_close(&window);
    pair_close(&pair);
}

int main(void)
{
    case_begin("goes_on_unasked");
    provider_start();
    messages(100);
    messages(san.max_message < 60000 ? san.max_message : 60000);
    behind_rdma(false);
    if (san.rdma_read != NULL)
        behind_rdma(true);
    provider_stop();
    return 0;
}
