/*
 * A switch that holds its locks of two sockets asks for results of one of them while messages come for
 * the other, whose upcall takes its lock: the call does not make the upcall of the other socket, nor
 * wait for it.
 * req: WSD-10
 */
#include <errno.h>
#include <pthread.h>

#include "pair.h"

enum { ROUNDS = 40, ASKED = 30, LENGTH = 64, BYSTANDERS = 10 };

static pthread_mutex_t lock_of_other;
static unsigned upcalls;

static void take_lock(struct op *op, void *context)
{
    int code = pthread_mutex_lock(&lock_of_other);

    (void)op;
    (void)context;
    if (code == EDEADLK)
        fail("the upcall of a socket is made inside a call for another one");
    CHECK_EQ(code, 0);
    __atomic_fetch_add(&upcalls, 1, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_mutex_unlock(&lock_of_other), 0);
}

static void run(void)
{
    struct op silent, notified, send;
    struct pair own, other;
    struct area own_in, own_out, other_in, other_out;
    DWORD bytes, flags;

    upcalls = 0;
    pair_open(&own, AF_INET);
    pair_open(&other, AF_INET);
    own_in = area_open(own.b.s, LENGTH, MEM_WRITE);
    own_out = area_open(own.a.s, LENGTH, MEM_READ);
    other_in = area_open(other.b.s, LENGTH, MEM_WRITE);
    other_out = area_open(other.a.s, LENGTH, MEM_READ);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        double begun = now_seconds();

        phase("round %u", round);
        op_init(&silent, POLL);
        CHECK_WSA_IN(san_recv_bytes(own.b.s, own_in.base, LENGTH, &silent), 0, WSA_IO_PENDING);
        op_init(&notified, NOTIFY);
        notified.then = take_lock;
        CHECK_WSA_IN(san_recv_bytes(other.b.s, other_in.base, LENGTH, &notified), 0,
                     WSA_IO_PENDING);

        CHECK_EQ(pthread_mutex_lock(&lock_of_other), 0);
        pattern_fill(other_out.base, LENGTH, round);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(other.a.s, other_out.base, LENGTH, &send));
        CHECK_OK(op_wait(other.a.s, &send));
        for (int i = 0; i < ASKED; i++)
            CHECK_WSA(san_result(own.b.s, &silent, false, &bytes, &flags), WSA_IO_INCOMPLETE);
        pattern_fill(own_out.base, LENGTH, round + 1);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(own.a.s, own_out.base, LENGTH, &send));
        CHECK_OK(op_wait(own.a.s, &send));
        CHECK_OK(op_wait(own.b.s, &silent));
        pattern_check(own_in.base, LENGTH, round + 1, "a message of the own socket");
        CHECK_EQ(__atomic_load_n(&upcalls, __ATOMIC_ACQUIRE), round - 1);
        CHECK_EQ(pthread_mutex_unlock(&lock_of_other), 0);

        while (__atomic_load_n(&upcalls, __ATOMIC_ACQUIRE) < round) {
            sleep_ms(1);
            CHECK(now_seconds() - begun < WAIT_SECONDS);
        }
        CHECK_OK(op_wait_flushed(&notified));
        pattern_check(other_in.base, LENGTH, round, "a message of the other socket");
    }
    area_close(&own_in);
    area_close(&own_out);
    area_close(&other_in);
    area_close(&other_out);
    pair_close(&own);
    pair_close(&other);
}

int main(void)
{
    struct pair bystanders[BYSTANDERS];
    pthread_mutexattr_t checking;

    case_begin("lock_of_stranger");
    CHECK_EQ(pthread_mutexattr_init(&checking), 0);
    CHECK_EQ(pthread_mutexattr_settype(&checking, PTHREAD_MUTEX_ERRORCHECK), 0);
    CHECK_EQ(pthread_mutex_init(&lock_of_other, &checking), 0);
    provider_start();
    run();
    pairs_open(bystanders, BYSTANDERS);
    run();
    pairs_close(bystanders, BYSTANDERS);
    provider_stop();
    return 0;
}
