/*
 * When the switch gives no handle for the new socket, WSPAccept fails, the peer is not left waiting,
 * free to try TCP, and the listener goes on.
 * req: WSD-07, WSD-08
 */
#include "pair.h"

int main(void)
{
    struct endpoint listener, client, accepted;
    struct pair pair;
    int begun;

    case_begin("accept_without_handle");
    provider_start();
    endpoint_listen(&listener, AF_INET, 4);
    endpoint_open(&client, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    endpoint_await_request(&listener);
    switch_refuse_handles(1, WSAENOBUFS);
    CHECK_WSA_IN(endpoint_accept_if(&listener, &accepted, accept_always, 0), WSAENOBUFS,
                 WSAEMFILE);
    phase("what the peer sees");
    /* Nobody has refused it: it may still come over TCP. */
    CHECK_WSA(endpoint_connected(&client, begun), WSAETIMEDOUT);
    endpoint_close(&client);

    pair_open_through(&pair, &listener);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
