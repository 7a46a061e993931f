/*
 * Many reads, or writes, queued in both directions at once, with messages behind them, all end: no
 * deadlock where the hardware takes only a few at a time.
 * req: WSD-14
 */
#include "pair.h"

enum { QUEUED = 12, LENGTH = 70000, ROUNDS = 10 };

struct half {
    struct endpoint *endpoint;
    struct area area, message;
    struct window window;
    struct op ops[QUEUED], send, recv;
};

static void post(struct half *half, const struct half *other, bool read, uint32_t round)
{
    for (DWORD i = 0; i < QUEUED; i++) {
        DWORD at = i * LENGTH;

        op_init(&half->ops[i], i % 2 ? POLL : NOTIFY);
        if (!read)
            pattern_fill(half->area.base + at, LENGTH, round + i);
        CHECK_POSTED(read ? area_read(&half->area, at, LENGTH, &other->window, at, &half->ops[i])
                          : area_write(&half->area, at, LENGTH, &other->window, at,
                                       &half->ops[i]));
    }
    op_init(&half->send, POLL);
    CHECK_POSTED(san_send_bytes(half->endpoint->s, half->message.base, 8, &half->send));
}

int main(void)
{
    struct half halves[2];
    struct pair pair;

    case_begin("many_reads");
    provider_start();
    pair_open(&pair, AF_INET);
    halves[0].endpoint = &pair.a;
    halves[1].endpoint = &pair.b;
    for (int i = 0; i < 2; i++) {
        SOCKET s = halves[i].endpoint->s;

        halves[i].area = area_open(s, QUEUED * LENGTH, MEM_READWRITE);
        halves[i].message = area_open(s, 16, MEM_READWRITE);
        halves[i].window = window_open(s, QUEUED * LENGTH, MEM_READWRITE);
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        bool read = san.rdma_read != NULL && round % 2 == 0;

        phase("round %u of %s both ways", round, read ? "reads" : "writes");
        for (int i = 0; i < 2; i++) {
            op_init(&halves[i].recv, POLL);
            CHECK_POSTED(san_recv_bytes(halves[i].endpoint->s, halves[i].message.base + 8, 8,
                                        &halves[i].recv));
            if (read)
                for (DWORD k = 0; k < QUEUED; k++)
                    pattern_fill(halves[i].window.base + k * LENGTH, LENGTH, round + k);
        }
        post(&halves[0], &halves[1], read, round);
        post(&halves[1], &halves[0], read, round);
        for (int i = 0; i < 2; i++) {
            SOCKET s = halves[i].endpoint->s;

            for (int k = 0; k < QUEUED; k++) {
                CHECK_OK(op_wait(s, &halves[i].ops[k]));
                CHECK_EQ(halves[i].ops[k].bytes, LENGTH);
            }
            CHECK_OK(op_wait(s, &halves[i].recv));
            CHECK_OK(op_wait(s, &halves[i].send));
        }
        for (int i = 0; i < 2; i++)
            for (DWORD k = 0; k < QUEUED; k++)
                pattern_check((read ? halves[i].area.base : halves[i].window.base) + k * LENGTH,
                              LENGTH, round + k, "moved memory");
    }
    for (int i = 0; i < 2; i++) {
        area_close(&halves[i].area);
        area_close(&halves[i].message);
        window_close(&halves[i].window);
    }
    pair_close(&pair);
    provider_stop();
    return 0;
}
