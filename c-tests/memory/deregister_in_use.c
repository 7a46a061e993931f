/*
 * Memory that a pending operation uses cannot be deregistered (WSAEINVAL), and the operation is not
 * disturbed by the attempt; when it has ended, it can.
 * req: WSD-12
 */
#include <stdlib.h>
#include <string.h>

#include "pair.h"

enum { LENGTH = 120, LARGE = 16 << 20, ROUNDS = 20 };

int main(void)
{
    struct area in, spare, out, large;
    struct window window;
    struct op recv, send, read;
    struct pair pair;
    DWORD size;
    unsigned refused = 0;
    const char *fabric = getenv("WSD_FABRIC");

    case_begin("deregister_in_use");
    provider_start();
    pair_open(&pair, AF_INET);
    in = area_open(pair.b.s, 2 * LENGTH, MEM_WRITE);
    spare = area_open(pair.b.s, LENGTH, MEM_WRITE);
    out = area_open(pair.a.s, LENGTH, MEM_READ);
    for (int how = POLL; how <= NOTIFY; how++) {
        phase("a pending receive, %s", how == POLL ? "silent" : "notified");
        op_init(&recv, (enum how)how);
        CHECK_WSA(san_recv_bytes(pair.b.s, in.base + LENGTH, LENGTH, &recv), WSA_IO_PENDING);
        for (int i = 0; i < 5; i++)
            CHECK_WSA(san_deregister(pair.b.s, in.handle), WSAEINVAL);
        pattern_fill(out.base, LENGTH, 4);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base, LENGTH, &send));
        CHECK_OK(op_wait(pair.b.s, &recv));
        CHECK_OK(op_wait(pair.a.s, &send));
        pattern_check(in.base + LENGTH, LENGTH, 4, "the message");
    }
    phase("other memory of the same socket");
    op_init(&recv, POLL);
    CHECK_WSA(san_recv_bytes(pair.b.s, in.base, LENGTH, &recv), WSA_IO_PENDING);
    area_close(&spare);
    op_init(&send, POLL);
    CHECK_POSTED(san_send_bytes(pair.a.s, out.base, LENGTH, &send));
    CHECK_OK(op_wait(pair.b.s, &recv));
    CHECK_OK(op_wait(pair.a.s, &send));
    area_close(&in);
    area_close(&out);

    if (san.rdma_read != NULL) {
        size = san.max_rdma < LARGE ? san.max_rdma : LARGE;
        window = window_open(pair.a.s, size, MEM_READ);
        for (int round = 0; round < ROUNDS; round++) {
            int code;

            phase("a large read, round %d", round);
            large = area_open(pair.b.s, size, MEM_WRITE);
            pattern_fill(window.base + size - 100, 100, (uint32_t)round);
            op_init(&read, POLL);
            CHECK_POSTED(area_read(&large, 0, size, &window, 0, &read));
            code = san_deregister(pair.b.s, large.handle);
            CHECK_WSA_IN(code, 0, WSAEINVAL);
            if (code == 0)
                CHECK(op_ended(&read)); /* only an operation that has ended lets go */
            CHECK_OK(op_wait(pair.b.s, &read));
            pattern_check(large.base + size - 100, 100, (uint32_t)round, "the memory read");
            if (code != 0)
                CHECK_OK(san_deregister(pair.b.s, large.handle));
            refused += code != 0;
            area_forget(&large);
        }
        /* A device has not ended such a read when its start is reported. */
        if (fabric != NULL && strcmp(fabric, "verbs") == 0)
            CHECK(refused > 0);
        window_close(&window);
    }
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
