/*
 * Threads that start and clean up at the same time: each start needs its cleanup, and after all of
 * them the provider is down and can start again.
 * req: WSD-02
 */
#include <pthread.h>

#include "pair.h"

enum { THREADS = 6, ROUNDS = 40 };

static void *start_and_stop(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        WSPUPCALLTABLEEX upcalls;
        WSAPROTOCOL_INFOW info;
        WSPPROC_TABLE table;
        WSPDATA data;
        SOCKET s;
        int code = 0;

        tcp_protocol_info(&info);
        switch_table(&upcalls);
        CHECK_OK(san.startup(0x0202, &data, &info, &upcalls, &table));
        s = table.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED,
                              &code);
        CHECK_WSA(s == INVALID_SOCKET ? code : 0, 0);
        CHECK_EQ(table.lpWSPCloseSocket(s, &code), 0);
        CHECK_EQ(table.lpWSPCleanup(&code), 0);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    struct pair pair;

    case_begin("startup_by_many");
    provider_start();
    provider_stop();
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, start_and_stop, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    CHECK_EQ(switch_open_handles(), 0);
    CHECK_OK(provider_startup());
    pair_open(&pair, AF_INET);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
