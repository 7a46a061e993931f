/*
 * With a full backlog the next peer is refused at once with WSAECONNREFUSED, and the listener hears
 * nothing of it; what was queued is served, and then there is room again.
 * req: WSD-06
 */
#include "pair.h"

enum { BACKLOG = 3, SURPLUS = 4 };

int main(void)
{
    struct endpoint listener, waiting[BACKLOG], late, accepted;
    struct pair pair;
    WSANETWORKEVENTS events;
    int begun[BACKLOG];

    case_begin("backlog_overflow");
    provider_start();
    endpoint_listen(&listener, AF_INET, BACKLOG);
    for (int i = 0; i < BACKLOG; i++) {
        phase("request %d", i);
        endpoint_open(&waiting[i], AF_INET);
        begun[i] = endpoint_connect(&waiting[i], &listener.local);
        CHECK_WSA(begun[i], WSAEWOULDBLOCK);
        endpoint_await_request(&listener);
    }

    for (int i = 0; i < SURPLUS; i++) {
        phase("request %d, one too many", BACKLOG + i);
        endpoint_open(&late, AF_INET);
        CHECK_WSA(endpoint_connected(&late, endpoint_connect(&late, &listener.local)),
                  WSAECONNREFUSED);
        endpoint_close(&late);
        CHECK(!event_is_set(listener.event));
        CHECK_OK(san_enum_events(listener.s, NULL, &events));
        CHECK_EQ(events.lNetworkEvents, 0);
    }

    for (int i = 0; i < BACKLOG; i++) {
        phase("serving request %d", i);
        CHECK(!event_is_set(waiting[i].event));
        endpoint_accept(&listener, &accepted);
        check_address(&accepted.peer, address_length(&waiting[i].local), &waiting[i].local,
                      "the peer, oldest first");
        CHECK_OK(endpoint_connected(&waiting[i], begun[i]));
        message_pass(&waiting[i], &accepted, 100, (uint32_t)i);
        endpoint_close(&accepted);
        endpoint_close(&waiting[i]);
    }
    CHECK_WSA(endpoint_accept_if(&listener, &accepted, accept_always, 0), WSAEWOULDBLOCK);
    phase("room again");
    pair_open_through(&pair, &listener);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
