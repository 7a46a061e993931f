/*
 * WSPArmCompletion, an addition to the interface: a caller that polls learns whether there is
 * something to collect, or gets a descriptor that becomes readable at the next completion and at
 * the end of the connection. Absent, the case is skipped.
 * req: WSD-10
 */
#include <poll.h>

#include "pair.h"

static int arm(SOCKET s, int *descriptor, BOOL *pending)
{
    int code = 0;

    *pending = 77;
    return san.arm_completion(s, descriptor, pending, &code) == 0 ? 0 : code;
}

static bool readable(int descriptor, int milliseconds)
{
    struct pollfd waiting = {descriptor, POLLIN, 0};

    return poll(&waiting, 1, milliseconds) > 0 && (waiting.revents & POLLIN) != 0;
}

/* Arms and sleeps until the operation has ended, as a caller would. */
static void sleep_until_ended(SOCKET s, struct op *op, int expected_descriptor)
{
    DWORD bytes, flags;
    BOOL pending;
    int descriptor;

    while (san_result(s, op, false, &bytes, &flags) == WSA_IO_INCOMPLETE) {
        CHECK_OK(arm(s, &descriptor, &pending));
        CHECK_EQ(descriptor, expected_descriptor);
        if (!pending)
            CHECK(readable(descriptor, WAIT_SECONDS * 1000));
    }
}

int main(void)
{
    struct op recv, send;
    struct area in, out;
    struct endpoint idle;
    struct pair pair;
    int descriptor, again;
    BOOL pending;

    case_begin("arm_completion");
    provider_start();
    if (san.arm_completion == NULL)
        skip("the provider has no WSPArmCompletion");
    endpoint_open(&idle, AF_INET);
    CHECK_WSA(arm(idle.s, &descriptor, &pending), WSAENOTCONN);
    endpoint_close(&idle);

    pair_open(&pair, AF_INET);
    in = area_open(pair.b.s, 64, MEM_WRITE);
    out = area_open(pair.a.s, 64, MEM_READ);
    phase("nothing to collect");
    op_init(&recv, POLL);
    CHECK_WSA(san_recv_bytes(pair.b.s, in.base, 64, &recv), WSA_IO_PENDING);
    CHECK_OK(arm(pair.b.s, &descriptor, &pending));
    CHECK_EQ(pending, FALSE);
    CHECK(descriptor >= 0);
    CHECK(!readable(descriptor, 100));
    phase("a message comes");
    op_init(&send, POLL);
    CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 64, &send));
    CHECK(readable(descriptor, WAIT_SECONDS * 1000));
    CHECK_OK(op_wait(pair.b.s, &recv));
    CHECK_OK(op_wait(pair.a.s, &send));

    phase("always the same descriptor");
    for (int i = 0; i < 500; i++) {
        op_init(&recv, POLL);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base, 64, &recv));
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base, 64, &send));
        sleep_until_ended(pair.b.s, &recv, descriptor);
        CHECK_OK(op_wait(pair.b.s, &recv));
        CHECK_OK(op_wait(pair.a.s, &send));
    }

    phase("the end of the connection");
    op_init(&recv, POLL);
    CHECK_WSA(san_recv_bytes(pair.b.s, in.base, 64, &recv), WSA_IO_PENDING);
    do {
        CHECK_OK(arm(pair.b.s, &again, &pending));
    } while (pending && san_result(pair.b.s, &recv, false, &(DWORD){0}, &(DWORD){0}) ==
                            WSA_IO_INCOMPLETE);
    CHECK_EQ(again, descriptor);
    CHECK_EQ(pending, FALSE);
    endpoint_close(&pair.a);
    CHECK(readable(descriptor, WAIT_SECONDS * 1000));
    sleep_until_ended(pair.b.s, &recv, descriptor);
    CHECK_WSA(op_wait(pair.b.s, &recv), WSAECONNRESET);
    endpoint_close(&pair.b);
    area_forget(&in);
    area_forget(&out);
    provider_stop();
    return 0;
}
