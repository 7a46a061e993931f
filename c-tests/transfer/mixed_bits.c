/*
 * Silent and notified operations mixed on one socket, completed and then flushed by close: as many
 * upcalls as notified operations were started, and every silent one readable.
 * req: WSD-10 WSD-11
 */
#include "pair.h"

enum { ROUNDS = 40, PENDING = 10, LENGTH = 64 };

int main(void)
{
    struct op sends[PENDING], recvs[PENDING];
    unsigned expected_b = 0, least_a = 0, most_a = 0;
    uint32_t random = 12345;
    struct pair pair;
    struct area out, in;

    case_begin("mixed_bits");
    provider_start();
    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, PENDING * LENGTH, MEM_READ);
    in = area_open(pair.b.s, PENDING * LENGTH, MEM_WRITE);
    for (int round = 0; round < ROUNDS; round++) {
        phase("round %d", round);
        for (int i = 0; i < PENDING; i++) {
            op_init(&recvs[i], next_random(&random) & 8 ? NOTIFY : POLL);
            CHECK_WSA(san_recv_bytes(pair.b.s, in.base + i * LENGTH, LENGTH, &recvs[i]),
                      WSA_IO_PENDING);
            expected_b += recvs[i].notify;
        }
        if (round + 1 == ROUNDS)
            break; /* these stay until close */
        for (int i = 0; i < PENDING; i++) {
            pattern_fill(out.base + i * LENGTH, LENGTH, (uint32_t)(round * PENDING + i));
            op_init(&sends[i], next_random(&random) & 8 ? NOTIFY : POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, out.base + i * LENGTH, LENGTH, &sends[i]));
            most_a += sends[i].notify;
            least_a += sends[i].notify && sends[i].posted == WSA_IO_PENDING;
        }
        for (int i = 0; i < PENDING; i++) {
            int k = round % 2 == 0 ? i : PENDING - 1 - i;

            CHECK_OK(op_wait(pair.b.s, &recvs[k]));
            pattern_check(in.base + k * LENGTH, LENGTH, (uint32_t)(round * PENDING + k),
                          "a message");
            CHECK_OK(op_wait(pair.a.s, &sends[k]));
        }
    }
    phase("flushing");
    CHECK_OK(san_close(pair.b.s));
    for (int i = 0; i < PENDING; i++) {
        CHECK_WSA(op_wait_flushed(&recvs[i]), WSA_OPERATION_ABORTED);
        CHECK_EQ(recvs[i].bytes, 0);
        CHECK_EQ(op_upcalls(&recvs[i]), recvs[i].notify);
    }
    CHECK(switch_await(UPCALL_CLOSE_HANDLE, pair.b.handle, 1));
    CHECK_EQ(switch_count(UPCALL_COMPLETE, pair.b.handle), expected_b);
    CHECK(switch_count(UPCALL_COMPLETE, pair.a.handle) >= least_a);
    CHECK(switch_count(UPCALL_COMPLETE, pair.a.handle) <= most_a);
    endpoint_forget(&pair.b);
    area_close(&out);
    area_forget(&in);
    endpoint_close(&pair.a);
    provider_stop();
    return 0;
}
