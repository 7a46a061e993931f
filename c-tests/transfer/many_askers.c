/*
 * One thread posts numbered receives, eight others ask for the results of any of them, and the
 * provider's own thread makes progress besides: message n is in receive n, every receive ends once, and
 * the upcalls come one after the other, in the order of the receives.
 * req: WSD-10
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "pair.h"

enum { ASKERS = 8, WINDOW = 12, LENGTH = 64, BYSTANDERS = 10 };

static struct pair pair;
static struct area in;
static struct op *recvs;
static unsigned messages, posted, told, inside, stop;

static bool is_silent(unsigned number)
{
    return number % 4 == 3;
}

static void in_order(struct op *op, void *context)
{
    unsigned number = (unsigned)(op - recvs);

    (void)context;
    if (__atomic_exchange_n(&inside, 1, __ATOMIC_ACQUIRE) != 0)
        fail("the upcall of receive %u comes during another one", number);
    if (number < told)
        fail("the upcall of receive %u comes after that of a later one", number);
    told = number + 1;
    __atomic_store_n(&inside, 0, __ATOMIC_RELEASE);
}

/* Asks for any receive that was posted, whether it has ended or not. */
static void *asker(void *argument)
{
    uint32_t random = (uint32_t)(size_t)argument + 1;

    for (unsigned turn = 1; __atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0; turn++) {
        unsigned count = __atomic_load_n(&posted, __ATOMIC_ACQUIRE);
        /* Most often one of the last. */
        unsigned back = 1 + next_random(&random) % (next_random(&random) % 8 ? WINDOW : count);
        DWORD bytes, flags;
        int code;

        if (back > count)
            back = count;
        code = san_result(pair.b.s, &recvs[count - back], false, &bytes, &flags);
        if (code != WSA_IO_INCOMPLETE) {
            CHECK_OK(code);
            CHECK_EQ(bytes, LENGTH);
        }
        if (turn % 16 == 0)
            sched_yield(); /* there may be fewer processors than askers */
    }
    return NULL;
}

static void *sender(void *unused)
{
    struct area out = area_open(pair.a.s, LENGTH, MEM_READ);
    struct op send;

    (void)unused;
    for (unsigned i = 0; i < messages; i++) {
        while (__atomic_load_n(&posted, __ATOMIC_ACQUIRE) <= i)
            sched_yield();
        pattern_fill(out.base, LENGTH, i);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(pair.a.s, out.base, LENGTH, &send));
        CHECK_OK(op_wait(pair.a.s, &send));
    }
    area_close(&out);
    return NULL;
}

static void post(unsigned number)
{
    struct op *recv = &recvs[number];

    op_init(recv, is_silent(number) ? POLL : NOTIFY);
    recv->then = in_order;
    CHECK_WSA_IN(san_recv_bytes(pair.b.s, in.base + number % WINDOW * LENGTH, LENGTH, recv), 0,
                 WSA_IO_PENDING);
    __atomic_store_n(&posted, number + 1, __ATOMIC_RELEASE);
}

static void run(void)
{
    pthread_t askers[ASKERS], sending;

    posted = told = stop = 0;
    pair_open(&pair, AF_INET);
    in = area_open(pair.b.s, WINDOW * LENGTH, MEM_WRITE);
    for (unsigned i = 0; i < WINDOW; i++)
        post(i);
    for (size_t i = 0; i < ASKERS; i++)
        CHECK_EQ(pthread_create(&askers[i], NULL, asker, (void *)i), 0);
    CHECK_EQ(pthread_create(&sending, NULL, sender, NULL), 0);
    for (unsigned i = 0; i < messages; i++) {
        struct op *recv = &recvs[i];
        double begun = now_seconds();

        phase("message %u", i);
        while (!op_ended(recv) || (!is_silent(i) && op_upcalls(recv) == 0)) {
            sched_yield();
            CHECK(now_seconds() - begun < WAIT_SECONDS);
        }
        CHECK_EQ(recv->ov.OffsetHigh, 0);
        CHECK_EQ(recv->ov.InternalHigh, LENGTH);
        CHECK_EQ(op_upcalls(recv), is_silent(i) ? 0 : 1);
        pattern_check(in.base + i % WINDOW * LENGTH, LENGTH, i, "a message");
        if (i + WINDOW < messages)
            post(i + WINDOW);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_join(sending, NULL), 0);
    for (int i = 0; i < ASKERS; i++)
        CHECK_EQ(pthread_join(askers[i], NULL), 0);
    area_close(&in);
    pair_close(&pair);
}

int main(void)
{
    struct pair bystanders[BYSTANDERS];

    case_begin("many_askers");
    provider_start();
    messages = divided(8000);
    CHECK(messages > WINDOW);
    recvs = calloc(messages, sizeof *recvs);
    CHECK(recvs != NULL);
    run();
    pairs_open(bystanders, BYSTANDERS);
    run();
    pairs_close(bystanders, BYSTANDERS);
    provider_stop();
    free(recvs);
    return 0;
}
