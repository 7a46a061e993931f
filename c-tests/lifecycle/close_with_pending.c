/*
 * Close with a pending operation of each kind, silent and notified: it ends with
 * WSA_OPERATION_ABORTED, or with its result if it was done by then, exactly once; the peer gets
 * WSAECONNRESET; the memory is free again.
 * req: WSD-11
 */
#include "pair.h"

enum { LARGE = 24 << 20, ROUNDS = 4, LENGTH = 100, SENDS = 12 };

enum kind { SEND, RECV, WRITE, READ, KINDS };

static const char *const names[KINDS] = {"WSPSend", "WSPRecv", "WSPRdmaWrite", "WSPRdmaRead"};

static void run(enum kind kind, enum how how, bool far_closes)
{
    struct op ops[SENDS], waiting;
    struct pair pair;
    struct area area, far_area;
    struct window window;
    DWORD size = san.max_rdma < LARGE ? san.max_rdma : LARGE;
    int count = 1;
    bool rdma = kind == WRITE || kind == READ;

    phase("%s pending, %s, %s closes", names[kind], how == POLL ? "silent" : "notified",
          far_closes ? "the peer" : "its own side");
    pair_open(&pair, AF_INET);
    area = area_open(pair.a.s, rdma ? size : SENDS * LENGTH, MEM_READWRITE);
    far_area = area_open(pair.b.s, LENGTH, MEM_READWRITE);
    window = window_open(pair.b.s, rdma ? size : LENGTH, MEM_READWRITE);
    op_init(&waiting, how);
    CHECK_WSA(san_recv_bytes(pair.b.s, far_area.base, LENGTH, &waiting), WSA_IO_PENDING);
    op_init(&ops[0], how);
    switch (kind) {
    case RECV:
        CHECK_WSA(san_recv_bytes(pair.a.s, area.base, LENGTH, &ops[0]), WSA_IO_PENDING);
        break;
    case WRITE:
        CHECK_POSTED(area_write(&area, 0, size, &window, 0, &ops[0]));
        break;
    case READ:
        CHECK_POSTED(area_read(&area, 0, size, &window, 0, &ops[0]));
        break;
    default:
        count = SENDS;
        for (int i = 0; i < SENDS; i++) {
            op_init(&ops[i], how);
            CHECK_POSTED(san_send_bytes(pair.a.s, area.base + i * LENGTH, LENGTH, &ops[i]));
        }
    }

    if (far_closes) {
        CHECK_OK(san_close(pair.b.s));
        for (int i = 0; i < count; i++) {
            int code = op_wait(pair.a.s, &ops[i]);

            if (kind == RECV)
                CHECK_WSA(code, WSAECONNRESET);
            else
                CHECK_WSA_IN(code, 0, WSAECONNRESET, WSAECONNABORTED);
        }
        CHECK_WSA_IN(op_wait_flushed(&waiting), WSA_OPERATION_ABORTED, 0);
        if (kind != SEND)
            CHECK_WSA(op_wait_flushed(&waiting), WSA_OPERATION_ABORTED);
        endpoint_forget(&pair.b);
        endpoint_close(&pair.a);
    } else {
        CHECK_OK(san_close(pair.a.s));
        for (int i = 0; i < count; i++) {
            int code = op_wait_flushed(&ops[i]);

            if (kind == RECV)
                CHECK_WSA(code, WSA_OPERATION_ABORTED);
            else
                CHECK_WSA_IN(code, 0, WSA_OPERATION_ABORTED);
            if (code != 0)
                CHECK_EQ(ops[i].bytes, 0);
        }
        if (kind == SEND)
            CHECK_WSA_IN(op_wait(pair.b.s, &waiting), 0, WSAECONNRESET);
        else
            CHECK_WSA(op_wait(pair.b.s, &waiting), WSAECONNRESET);
        endpoint_forget(&pair.a);
        endpoint_close(&pair.b);
    }
    area_forget(&area);
    area_forget(&far_area);
    window_forget(&window);
}

int main(void)
{
    case_begin("close_with_pending");
    provider_start();
    for (int round = 0; round < ROUNDS; round++)
        for (enum kind kind = SEND; kind < KINDS; kind++)
            if (kind != READ || san.rdma_read != NULL)
                run(kind, round % 2 ? POLL : NOTIFY, round >= ROUNDS / 2);
    provider_stop();
    return 0;
}
