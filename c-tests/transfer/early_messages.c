/*
 * Several messages that came before any receive go one by one into the receives posted later, in
 * order and with their lengths, and what is sent afterwards follows them.
 * req: WSD-09
 */
#include <string.h>

#include "pair.h"

enum { EARLY = 6, LATER = 6, TOTAL = EARLY + LATER, ROOM = 512 };

static DWORD length_of(int i)
{
    return 256 - (DWORD)i * 17;
}

int main(void)
{
    struct op sends[TOTAL], recvs[TOTAL];
    struct pair pair;
    struct area out, in;

    case_begin("early_messages");
    provider_start();
    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, TOTAL * ROOM, MEM_READ);
    for (int i = 0; i < TOTAL; i++)
        pattern_fill(out.base + i * ROOM, length_of(i), (uint32_t)i + 1);
    for (int i = 0; i < EARLY; i++) {
        op_init(&sends[i], POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base + i * ROOM, length_of(i), &sends[i]));
    }
    sleep_ms(50);

    in = area_open(pair.b.s, TOTAL * ROOM, MEM_WRITE);
    memset(in.base, 0xEE, in.length);
    for (int i = 0; i < TOTAL; i++) {
        phase("receive %d", i);
        op_init(&recvs[i], i % 2 == 0 ? POLL : NOTIFY);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + i * ROOM, ROOM, &recvs[i]));
        if (i >= EARLY) {
            op_init(&sends[i], POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, out.base + i * ROOM, length_of(i), &sends[i]));
        }
    }
    for (int i = 0; i < TOTAL; i++) {
        phase("message %d", i);
        CHECK_OK(op_wait(pair.b.s, &recvs[i]));
        CHECK_EQ(recvs[i].bytes, length_of(i));
        pattern_check(in.base + i * ROOM, length_of(i), (uint32_t)i + 1, "a message");
        bytes_check(in.base + i * ROOM + length_of(i), ROOM - length_of(i), 0xEE,
                    "the receive behind a message");
        CHECK_OK(op_wait(pair.a.s, &sends[i]));
    }
    area_close(&in);
    area_close(&out);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
