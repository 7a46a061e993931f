/*
 * Hundreds of thousands of messages both ways at once over one connection, a thread a side, each
 * with a window of receives; a side sends only into receives that the other has posted. Fewer where WSD_TEST_DIVISOR says so.
 * req: WSD-10 WSD-14
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "pair.h"

enum { WINDOW = 10, ROOM = 256 };

static uint32_t messages;


struct side {
    pthread_t thread;
    struct endpoint *endpoint;
    const struct side *other;
    uint32_t seed;
    struct op recvs[WINDOW]; /* stay pending until the socket is closed */
    uint32_t posted;         /* receives so far; read by the other side */
};

static DWORD length_of(uint32_t number)
{
    return sizeof number + number * 7 % (ROOM - sizeof number);
}

static void *run(void *argument)
{
    struct side *self = argument;
    SOCKET s = self->endpoint->s;
    struct area in = area_open(s, WINDOW * ROOM, MEM_WRITE);
    struct area out = area_open(s, WINDOW * ROOM, MEM_READ);
    struct op *recvs = self->recvs, sends[WINDOW];
    uint32_t sent = 0, finished = 0, received = 0;
    double moved = now_seconds();

    for (int i = 0; i < WINDOW; i++) {
        op_init(&recvs[i], POLL);
        CHECK_POSTED(san_recv_bytes(s, in.base + i * ROOM, ROOM, &recvs[i]));
    }
    __atomic_store_n(&self->posted, WINDOW, __ATOMIC_RELEASE);
    while (received < messages || finished < messages) {
        bool idle = true;
        DWORD bytes, flags;
        int code;

        if (received < messages) {
            struct op *recv = &recvs[received % WINDOW];
            unsigned char *at = in.base + received % WINDOW * ROOM;

            code = san_result(s, recv, false, &bytes, &flags);
            if (code != WSA_IO_INCOMPLETE) {
                uint32_t number;

                CHECK_OK(code);
                CHECK_EQ(bytes, length_of(received));
                memcpy(&number, at, sizeof number);
                CHECK_EQ(number, received);
                pattern_check(at + sizeof number, bytes - sizeof number,
                              received + (self->seed ^ 1) * 7, "a message");
                op_init(recv, POLL);
                CHECK_POSTED(san_recv_bytes(s, at, ROOM, recv));
                __atomic_fetch_add(&self->posted, 1, __ATOMIC_RELEASE);
                received++;
                idle = false;
            }
        }
        if (finished < sent) {
            code = san_result(s, &sends[finished % WINDOW], false, &bytes, &flags);
            if (code != WSA_IO_INCOMPLETE) {
                CHECK_OK(code);
                finished++;
                idle = false;
            }
        }
        if (sent < messages && sent - finished < WINDOW &&
            sent < __atomic_load_n(&self->other->posted, __ATOMIC_ACQUIRE)) {
            struct op *send = &sends[sent % WINDOW];
            unsigned char *at = out.base + sent % WINDOW * ROOM;

            memcpy(at, &sent, sizeof sent);
            pattern_fill(at + sizeof sent, length_of(sent) - sizeof sent, sent + self->seed * 7);
            op_init(send, POLL);
            CHECK_POSTED(san_send_bytes(s, at, length_of(sent), send));
            sent++;
            idle = false;
        }
        if (!idle)
            moved = now_seconds();
        else if (now_seconds() - moved > WAIT_SECONDS)
            fail("side %u is stuck: %u sent, %u finished, %u received", self->seed, sent,
                 finished, received);
        else
            sched_yield();
    }
    return NULL;
}

int main(void)
{
    static struct side sides[2];
    struct pair pair;

    case_begin("both_directions");
    case_limit(110);
    switch_log_off();
    provider_start();
    pair_open(&pair, AF_INET);
    messages = divided(100000);
    phase("%u messages each way", messages);
    for (uint32_t i = 0; i < 2; i++) {
        sides[i].endpoint = i == 0 ? &pair.a : &pair.b;
        sides[i].other = &sides[1 - i];
        sides[i].seed = i;
        sides[i].posted = 0;
    }
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&sides[i].thread, NULL, run, &sides[i]), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(sides[i].thread, NULL), 0);
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), 0);
    pair_close(&pair);
    provider_stop();
    return 0;
}
