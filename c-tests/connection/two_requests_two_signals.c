/*
 * Two requests that were queued before the first was taken out give two signals: WSPAccept resets
 * the event and signals it again while requests remain.
 * req: WSD-07
 */
#include "pair.h"

enum { REQUESTS = 4 };

int main(void)
{
    struct endpoint listener, clients[REQUESTS], accepted;
    WSANETWORKEVENTS events;
    int begun[REQUESTS];

    case_begin("two_requests_two_signals");
    provider_start();
    endpoint_listen(&listener, AF_INET, REQUESTS);
    for (int i = 0; i < REQUESTS; i++) {
        endpoint_open(&clients[i], AF_INET);
        begun[i] = endpoint_connect(&clients[i], &listener.local);
        CHECK_WSA(begun[i], WSAEWOULDBLOCK);
    }
    CHECK(event_wait(listener.event, WAIT_SECONDS * 1000));
    sleep_ms(300); /* the rest arrives; nothing is taken out meanwhile */

    for (int i = 0; i < REQUESTS; i++) {
        phase("signal %d", i);
        CHECK(event_wait(listener.event, WAIT_SECONDS * 1000));
        CHECK_OK(san_enum_events(listener.s, listener.event, &events));
        CHECK_EQ(events.lNetworkEvents, FD_ACCEPT);
        CHECK_EQ(events.iErrorCode[FD_ACCEPT_BIT], 0);
        endpoint_accept(&listener, &accepted);
        CHECK_OK(endpoint_connected(&clients[i], begun[i]));
        message_pass(&accepted, &clients[i], 32, 1);
        endpoint_close(&accepted);
        endpoint_close(&clients[i]);
    }
    phase("nothing more");
    CHECK(!event_wait(listener.event, 200));
    CHECK_WSA(endpoint_accept_if(&listener, &accepted, accept_always, 0), WSAEWOULDBLOCK);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
