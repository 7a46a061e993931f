/*
 * What calls answer once a connection has ended, as a table of calls and ends: WSAECONNRESET when
 * the peer has closed, WSAECONNABORTED when this side found the connection broken, WSAENOTSOCK
 * after the own close. What had completed before keeps its result, and can still be asked for.
 * req: WSD-11
 */
#include "pair.h"

enum { LENGTH = 100 };

enum end { PEER_CLOSES, BREAKS, PEER_BREAKS, CLOSES, ENDS };

static const struct {
    const char *name;
    /* What a pending receive ends with, and what is then posted. */
    int pending;
    int posted;
} ends[ENDS] = {
    {"the peer has closed", WSAECONNRESET, WSAECONNRESET},
    {"a message was too long", WSAECONNABORTED, WSAECONNABORTED},
    {"a message was too long for the peer", WSAECONNRESET, WSAECONNRESET},
    {"closed", WSA_OPERATION_ABORTED, WSAENOTSOCK},
};

static int result(SOCKET s, struct op *op)
{
    DWORD bytes, flags;

    return san_result(s, op, false, &bytes, &flags);
}

/* All posts on `s`, twice, silent and notified: none is started. */
static void check_posts(SOCKET s, struct area *area, const struct window *window, int code)
{
    for (int round = 0; round < 4; round++) {
        enum how how = round % 2 ? POLL : NOTIFY;
        struct op ops[4];

        for (int i = 0; i < 4; i++)
            op_init(&ops[i], how);
        CHECK_WSA(san_send_bytes(s, area->base, LENGTH, &ops[0]), code);
        CHECK_WSA(san_recv_bytes(s, area->base, LENGTH, &ops[1]), code);
        CHECK_WSA(area_write(area, 0, LENGTH, window, 0, &ops[2]), code);
        if (san.rdma_read != NULL)
            CHECK_WSA(area_read(area, 0, LENGTH, window, 0, &ops[3]), code);
    }
}

static void run(enum end end)
{
    struct op fetched, pending, sent, too_long, small;
    struct pair pair;
    struct area area, far_area;
    struct window window;
    SOCKET s;

    phase("%s", ends[end].name);
    pair_open(&pair, AF_INET);
    s = pair.a.s;
    area = area_open(s, 2 * LENGTH, MEM_READWRITE);
    far_area = area_open(pair.b.s, 2 * LENGTH, MEM_READWRITE);
    window = window_open(pair.b.s, LENGTH, MEM_READWRITE);

    /* One message arrives; nobody asks for it yet. */
    op_init(&fetched, POLL);
    CHECK_WSA(san_recv_bytes(s, area.base, LENGTH, &fetched), WSA_IO_PENDING);
    op_init(&sent, POLL);
    CHECK_POSTED(san_send_bytes(pair.b.s, far_area.base, LENGTH, &sent));
    CHECK_OK(op_wait(pair.b.s, &sent));

    op_init(&small, POLL);
    op_init(&too_long, POLL);
    if (end == BREAKS)
        CHECK_WSA(san_recv_bytes(s, area.base, LENGTH / 2, &small), WSA_IO_PENDING);
    if (end == PEER_BREAKS)
        CHECK_WSA(san_recv_bytes(pair.b.s, far_area.base, LENGTH / 2, &small), WSA_IO_PENDING);
    op_init(&pending, POLL);
    CHECK_WSA(san_recv_bytes(s, area.base, LENGTH, &pending), WSA_IO_PENDING);

    switch (end) {
    case PEER_CLOSES:
        CHECK_OK(san_close(pair.b.s));
        break;
    case BREAKS:
        CHECK_POSTED(san_send_bytes(pair.b.s, far_area.base, LENGTH, &too_long));
        break;
    case PEER_BREAKS:
        CHECK_POSTED(san_send_bytes(s, area.base + LENGTH, LENGTH, &too_long));
        CHECK_WSA(op_wait(pair.b.s, &small), WSAEMSGSIZE);
        break;
    default:
        CHECK_OK(op_wait(s, &fetched));
        CHECK_OK(san_close(s));
        break;
    }

    if (end == CLOSES) {
        CHECK_WSA(op_wait_flushed(&pending), ends[end].pending);
        CHECK_WSA(result(s, &fetched), WSAENOTSOCK);
    } else {
        CHECK_OK(op_wait(s, &fetched));
        CHECK_EQ(fetched.bytes, LENGTH);
        if (end == BREAKS)
            CHECK_WSA(op_wait(s, &small), WSAEMSGSIZE);
        CHECK_WSA(op_wait(s, &pending), ends[end].pending);
        CHECK_EQ(pending.bytes, 0);
    }
    check_posts(s, &area, &window, ends[end].posted);
    if (end != CLOSES) {
        /* What has a result still has it. */
        CHECK_OK(result(s, &fetched));
        CHECK_WSA(result(s, &pending), ends[end].pending);
    }

    if (end == CLOSES)
        endpoint_forget(&pair.a);
    else
        endpoint_close(&pair.a);
    if (end == PEER_CLOSES)
        endpoint_forget(&pair.b);
    else
        endpoint_close(&pair.b);
    area_forget(&area);
    area_forget(&far_area);
    window_forget(&window);
}

int main(void)
{
    case_begin("posts_after_the_end");
    provider_start();
    for (int round = 0; round < 3; round++)
        for (enum end end = PEER_CLOSES; end < ENDS; end++)
            run(end);
    provider_stop();
    return 0;
}
