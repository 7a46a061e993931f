/*
 * Requests storm a listener while it is accepted from and then closed: nothing hangs, and every
 * client gets a definite answer.
 * req: WSD-06 WSD-07 WSD-08
 */
#include <pthread.h>

#include "pair.h"

enum { THREADS = 6, ROUNDS = 12 };

static union address target;
static unsigned answers[3]; /* connected, refused, nobody there */

static void *storm(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        struct endpoint client;
        int code;

        endpoint_open(&client, AF_INET);
        code = endpoint_connected(&client, endpoint_connect(&client, &target));
        /* WSAETIMEDOUT: TCP may have a listener there when the SAN has none any more. */
        CHECK_WSA_IN(code, 0, WSAECONNREFUSED, WSAECONNRESET, WSAETIMEDOUT);
        __atomic_fetch_add(&answers[code == 0 ? 0 : code == WSAECONNREFUSED ? 1 : 2], 1,
                           __ATOMIC_RELAXED);
        endpoint_close(&client);
    }
    return NULL;
}

int main(void)
{
    struct endpoint listener, accepted;
    pthread_t threads[THREADS];
    int served = 0;

    case_begin("listener_storm");
    provider_start();
    endpoint_listen(&listener, AF_INET, 3);
    target = listener.local;
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, storm, NULL), 0);

    phase("serving some, rejecting some");
    while (served < THREADS * ROUNDS / 3) {
        int code;

        if (!event_wait(listener.event, 2000))
            break;
        code = endpoint_accept_if(&listener, &accepted,
                                  served % 4 == 3 ? reject_always : accept_always, 0);
        CHECK_WSA_IN(code, 0, WSAECONNREFUSED, WSAEWOULDBLOCK, WSAECONNRESET);
        if (code == 0)
            endpoint_close(&accepted);
        if (code == WSAEWOULDBLOCK) {
            WSANETWORKEVENTS events;

            CHECK_OK(san_enum_events(listener.s, listener.event, &events));
        } else {
            served++;
        }
    }
    phase("closing the listener in the storm");
    endpoint_close(&listener);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(answers[0] + answers[1] + answers[2], THREADS * ROUNDS);
    CHECK(answers[0] > 0);
    provider_stop();
    return 0;
}
