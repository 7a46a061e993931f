/*
 * Close with k pending operations: k completions with WSA_OPERATION_ABORTED and no bytes, the
 * peer's with WSAECONNRESET, then one WPUCloseSocketHandle as the last upcall of the socket, then
 * WSAENOTSOCK from every function. The peer's socket lives until its own switch closes it.
 * req: WSD-11
 */
#include "calls.h"

enum { PENDING = 12, LENGTH = 100 };

static void check_last(SOCKET handle, unsigned completions)
{
    static struct upcall log[4096];
    size_t count = switch_log(log, sizeof log / sizeof log[0]);
    unsigned seen = 0;
    bool closed = false;

    for (size_t i = 0; i < count; i++) {
        if (log[i].handle != handle)
            continue;
        if (closed)
            fail("upcall %d of the socket after WPUCloseSocketHandle", log[i].kind);
        if (log[i].kind == UPCALL_COMPLETE)
            seen++;
        if (log[i].kind == UPCALL_CLOSE_HANDLE)
            closed = true;
    }
    CHECK(closed);
    CHECK_EQ(seen, completions);
}

static void run(struct material *material, unsigned notified_every)
{
    struct op own[PENDING], far[PENDING], late;
    struct area in, far_in;
    struct pair pair;
    unsigned own_notified = 0, far_notified = 0;
    DWORD bytes, flags;

    pair_open(&pair, AF_INET);
    in = area_open(pair.a.s, PENDING * LENGTH, MEM_READWRITE);
    far_in = area_open(pair.b.s, PENDING * LENGTH, MEM_READWRITE);
    for (int i = 0; i < PENDING; i++) {
        enum how how = i % notified_every == 0 ? NOTIFY : POLL;

        op_init(&own[i], how);
        op_init(&far[i], how);
        CHECK_WSA(san_recv_bytes(pair.a.s, in.base + i * LENGTH, LENGTH, &own[i]),
                  WSA_IO_PENDING);
        CHECK_WSA(san_recv_bytes(pair.b.s, far_in.base + i * LENGTH, LENGTH, &far[i]),
                  WSA_IO_PENDING);
        own_notified += own[i].notify;
        far_notified += far[i].notify;
    }

    phase("closing with %d pending receives", PENDING);
    CHECK_OK(san_close(pair.a.s));
    for (int i = 0; i < PENDING; i++) {
        CHECK_WSA(op_wait_flushed(&own[i]), WSA_OPERATION_ABORTED);
        CHECK_EQ(own[i].bytes, 0);
    }
    CHECK(switch_await(UPCALL_CLOSE_HANDLE, pair.a.handle, 1));
    for (int i = 0; i < PENDING; i++) {
        phase("the peer's receive %d", i);
        CHECK_WSA(op_wait(pair.b.s, &far[i]), WSAECONNRESET);
        CHECK_EQ(far[i].bytes, 0);
    }

    phase("the closed socket");
    check_no_socket(pair.a.s, material);
    CHECK_WSA(san_result(pair.a.s, &own[1], false, &bytes, &flags), WSAENOTSOCK);
    check_last(pair.a.handle, own_notified);

    phase("the peer's socket is still one");
    CHECK(switch_handle_is_open(pair.b.handle));
    for (int i = 0; i < PENDING; i++)
        CHECK_WSA(san_result(pair.b.s, &far[i], false, &bytes, &flags), WSAECONNRESET);
    op_init(&late, NOTIFY);
    CHECK_WSA(san_recv_bytes(pair.b.s, far_in.base, LENGTH, &late), WSAECONNRESET);
    op_init(&late, NOTIFY);
    CHECK_WSA(san_send_bytes(pair.b.s, far_in.base, LENGTH, &late), WSAECONNRESET);
    CHECK_OK(san_deregister(pair.b.s, far_in.handle));
    CHECK_OK(san_close(pair.b.s));
    CHECK(switch_await(UPCALL_CLOSE_HANDLE, pair.b.handle, 1));
    check_last(pair.b.handle, far_notified);
    check_no_socket(pair.b.s, material);

    endpoint_forget(&pair.a);
    endpoint_forget(&pair.b);
    bytes_check(in.base, in.length, 0, "the flushed receives");
    area_forget(&in);
    area_forget(&far_in);
}

int main(void)
{
    struct material material;
    struct pair healthy;

    case_begin("flush_on_close");
    provider_start();
    pair_open(&healthy, AF_INET);
    material_open(&material, healthy.a.s);
    run(&material, 1);       /* all notified */
    run(&material, 2);       /* half of them */
    run(&material, PENDING); /* all but one silent */
    pair_exchange(&healthy);
    material_close(&material, healthy.a.s);
    pair_close(&healthy);
    provider_stop();
    return 0;
}
