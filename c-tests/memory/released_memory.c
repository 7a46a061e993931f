/*
 * WSPMemoryRegistrationCacheCallback says what became of the registrations that are kept for the memory
 * it names, also while others post: each its own memory, or all of them the same on one connection.
 * req: LATER-04
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lane.h"

enum { WORKERS = 8, RACES = 40, PIECE = 2 * PAGE, SEED = 9000 };

struct worker {
    struct lane lane;
    unsigned char *base;
    unsigned char *target; /* in one area, when all have one connection */
    unsigned number;
    pthread_t thread;
};

static struct worker workers[WORKERS];
static unsigned over;

/* The code of the callback, 0 for success. */
static int released(void *base, size_t length)
{
    int code = 0;
    int rc = san.cache_callback(base, length, &code);

    CHECK(rc == 0 || rc == SOCKET_ERROR);
    return rc == 0 ? 0 : code;
}

static void callback_tells(struct lane *lane, unsigned char *base)
{
    HANDLE handle;

    CHECK_EQ(released(base, LENGTH), WSAEINVAL);
    lane_carry(lane, base, 100, "before the callback");
    CHECK_EQ(released(base + 5 * PAGE + 3, 1), 0); /* a part is enough */
    CHECK_EQ(released(base, LENGTH), WSAEINVAL);
    CHECK_OK(san_register(lane->pair.a.s, base, LENGTH, MEM_READ, &handle));
    CHECK_EQ(released(base, LENGTH), WSAEFAULT);
    CHECK_OK(san_deregister(lane->pair.a.s, handle));
    CHECK_EQ(released(base, LENGTH), WSAEINVAL); /* it ended with its last use */
    CHECK_EQ(released(base, 0), WSAEINVAL);
    lane_carry(lane, base, 101, "after the callback");
}

/* Names the memory of all, whole and in part, until it is over. */
static void *tells_on(void *unused)
{
    (void)unused;
    for (unsigned turn = 0; !__atomic_load_n(&over, __ATOMIC_ACQUIRE); turn++) {
        unsigned char *base = workers[turn % WORKERS].base;
        int code = turn % 3 == 0 ? released(base + PAGE, 1) : released(base, PIECE);

        CHECK(code == 0 || code == WSAEINVAL || code == WSAEFAULT);
    }
    return NULL;
}

static void *carries_on(void *context)
{
    struct worker *self = (struct worker *)context;

    for (uint32_t round = 0; round < RACES; round++)
        lane_carry(&self->lane, self->base, 1000 * self->number + round,
                   "memory named by the callback meanwhile");
    return NULL;
}

/* All send the same, so it does not matter whose message comes to whose receive. */
static void *hammers_on(void *context)
{
    struct worker *self = (struct worker *)context;
    struct pair *pair = &workers[0].lane.pair;

    for (uint32_t round = 0; round < RACES; round++) {
        struct op send, recv;
        HANDLE handle;

        CHECK_OK(san_register(pair->a.s, self->base, PIECE, MEM_READ, &handle));
        op_init(&recv, POLL);
        CHECK_POSTED(san_recv_bytes(pair->b.s, self->target, PIECE, &recv));
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(pair->a.s, self->base, PIECE, &send));
        CHECK_OK(op_wait(pair->a.s, &send));
        CHECK_OK(op_wait(pair->b.s, &recv));
        CHECK_EQ(recv.bytes, PIECE);
        pattern_check(self->target, PIECE, SEED, "the memory of all threads");
        memset(self->target, 0, PIECE);
        CHECK_OK(san_deregister(pair->a.s, handle));
    }
    return NULL;
}

/* All workers at once, and one more thread that calls the callback. */
static void race(void *(*work)(void *))
{
    pthread_t telling;

    __atomic_store_n(&over, 0, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_create(&telling, NULL, tells_on, NULL), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_join(workers[i].thread, NULL), 0);
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_join(telling, NULL), 0);
}

int main(void)
{
    const char *fabric = getenv("WSD_FABRIC");
    struct area targets;
    unsigned char *base;

    case_begin("released_memory");
    provider_start();
    if (san.cache_callback == NULL && fabric != NULL && strcmp(fabric, "verbs") == 0)
        fail("registrations with RDMA devices are kept, and nobody can tell of released memory");
    if (san.cache_callback == NULL)
        skip("no registrations are kept: there is no WSPMemoryRegistrationCacheCallback");
    if (san.max_message < PIECE)
        skip("messages of %d bytes are too large for this provider", PIECE);

    lane_open(&workers[0].lane);
    phase("the callback");
    callback_tells(&workers[0].lane, map_at(NULL, LENGTH));

    phase("a region for each thread");
    for (unsigned i = 0; i < WORKERS; i++) {
        if (i > 0)
            lane_open(&workers[i].lane);
        workers[i].base = map_at(NULL, LENGTH);
        workers[i].number = i;
    }
    race(carries_on);

    phase("one region for all threads");
    base = map_at(NULL, PIECE);
    pattern_fill(base, PIECE, SEED);
    targets = area_open(workers[0].lane.pair.b.s, WORKERS * PIECE, MEM_WRITE);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].base = base;
        workers[i].target = targets.base + i * PIECE;
    }
    race(hammers_on);
    area_close(&targets);
    for (unsigned i = 0; i < WORKERS; i++)
        lane_close(&workers[i].lane);
    provider_stop();
    return 0;
}
