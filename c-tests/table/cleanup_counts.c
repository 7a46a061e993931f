/*
 * N startups need N cleanups; one more, or one before the first startup, is WSANOTINITIALISED.
 * The upcalls are copied during WSPStartupEx. After the last cleanup the functions say so, and a
 * new startup works.
 * req: WSD-02
 */
#include "pair.h"

int main(void)
{
    enum { STARTUPS = 5 };
    SOCKET s, other;
    struct pair pair;
    WSPPROC_TABLE table;

    case_begin("cleanup_counts");
    provider_start();
    table = san.table;

    phase("%d startups", STARTUPS);
    for (int i = 1; i < STARTUPS; i++)
        CHECK_OK(provider_startup());
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    for (int i = 1; i < STARTUPS; i++) {
        CHECK_OK(san_cleanup());
        /* Still started: neither the socket nor the table has gone. */
        CHECK_OK(san_socket(AF_INET, &other, NULL));
        CHECK_OK(san_close(other));
    }
    CHECK(switch_open_handles() == 1);
    CHECK_OK(san_close(s));
    provider_stop();

    phase("after the last cleanup");
    san.table = table;
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    CHECK_WSA(san_socket(AF_INET, &s, NULL), WSANOTINITIALISED);

    for (int i = 0; i < 3; i++) {
        phase("start again, time %d", i);
        CHECK_OK(provider_startup());
        pair_open(&pair, AF_INET);
        pair_exchange(&pair);
        pair_close(&pair);
        provider_stop();
        CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    }
    return 0;
}
