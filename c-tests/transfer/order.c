/*
 * Messages arrive in the order of the sends, one in one receive, whole; receives are filled in
 * posting order. Some thousands of random length, a window of them in flight.
 * req: WSD-10 WSD-14
 */
#include "pair.h"

enum { WINDOW = 8, MESSAGES = 5000, ROOM = 2048 };

static DWORD length_of(int i)
{
    uint32_t state = (uint32_t)i * 2654435761u + 1;

    return 4 + next_random(&state) % (ROOM - 3);
}

int main(void)
{
    struct op sends[WINDOW], recvs[WINDOW];
    struct pair pair;
    struct area out, in;
    int sent = 0;

    case_begin("order");
    provider_start();
    if (san.max_message < ROOM)
        skip("messages of %d bytes are too large for this provider", ROOM);
    pair_open(&pair, AF_INET);
    out = area_open(pair.a.s, WINDOW * ROOM, MEM_READ);
    in = area_open(pair.b.s, WINDOW * ROOM, MEM_WRITE);
    for (int i = 0; i < WINDOW; i++) {
        op_init(&recvs[i], POLL);
        CHECK_POSTED(san_recv_bytes(pair.b.s, in.base + i * ROOM, ROOM, &recvs[i]));
    }
    for (int done = 0; done < MESSAGES; done++) {
        struct op *recv = &recvs[done % WINDOW];
        unsigned char *at = in.base + done % WINDOW * ROOM;

        phase("message %d", done);
        while (sent < MESSAGES && sent < done + WINDOW) {
            struct op *send = &sends[sent % WINDOW];

            if (sent >= WINDOW)
                CHECK_OK(op_wait(pair.a.s, send));
            pattern_fill(out.base + sent % WINDOW * ROOM, length_of(sent), (uint32_t)sent);
            op_init(send, sent % 3 == 0 ? NOTIFY : POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, out.base + sent % WINDOW * ROOM, length_of(sent),
                                        send));
            sent++;
        }
        CHECK_OK(op_wait(pair.b.s, recv));
        CHECK_EQ(recv->bytes, length_of(done));
        pattern_check(at, recv->bytes, (uint32_t)done, "a message");
        if (done + WINDOW < MESSAGES) {
            op_init(recv, done % 5 == 0 ? NOTIFY : POLL);
            CHECK_POSTED(san_recv_bytes(pair.b.s, at, ROOM, recv));
        }
    }
    for (int i = 0; i < WINDOW; i++)
        CHECK_OK(op_wait(pair.a.s, &sends[i]));
    area_close(&in);
    area_close(&out);
    pair_close(&pair);
    provider_stop();
    return 0;
}
