/*
 * Later on, too, a message that finds no receive posted does not end the connection: it arrives
 * when one is posted.
 * req: WSD-09
 */
#include "pair.h"

enum { ROUNDS = 4, BURST = 5, LENGTH = 200 };

int main(void)
{
    struct op sends[BURST], recv;
    struct pair pair;
    struct area out, in;

    case_begin("no_receive_posted");
    provider_start();
    pair_open(&pair, AF_INET);
    pair_exchange(&pair);
    out = area_open(pair.b.s, BURST * LENGTH, MEM_READ);
    in = area_open(pair.a.s, LENGTH, MEM_WRITE);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < BURST; i++) {
            pattern_fill(out.base + i * LENGTH, LENGTH, round * BURST + i);
            op_init(&sends[i], POLL);
            CHECK_POSTED(san_send_bytes(pair.b.s, out.base + i * LENGTH, LENGTH, &sends[i]));
        }
        sleep_ms(round * 40);
        for (uint32_t i = 0; i < BURST; i++) {
            phase("round %u, message %u", round, i);
            op_init(&recv, POLL);
            CHECK_POSTED(san_recv_bytes(pair.a.s, in.base, LENGTH, &recv));
            CHECK_OK(op_wait(pair.a.s, &recv));
            CHECK_EQ(recv.bytes, LENGTH);
            pattern_check(in.base, LENGTH, round * BURST + i, "a message");
        }
        for (uint32_t i = 0; i < BURST; i++)
            CHECK_OK(op_wait(pair.b.s, &sends[i]));
    }
    area_close(&in);
    area_close(&out);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
