/*
 * WSPEventSelect takes FD_ACCEPT and FD_CONNECT only, a new call replaces the event, mask 0 names
 * none, and an event that is already recorded is signalled at once. WSPEnumNetworkEvents takes the
 * record out whole and may be called without an event.
 * req: WSD-07 WSD-08
 */
#include <string.h>

#include "pair.h"

int main(void)
{
    static const int foreign[] = {FD_READ,      FD_WRITE,     FD_OOB,
                                  FD_CLOSE,     FD_QOS,       FD_ADDRESS_LIST_CHANGE,
                                  FD_ACCEPT | FD_READ,        -1};
    struct endpoint listener, client, accepted;
    WSANETWORKEVENTS events;
    WSAEVENT other;
    int begun;

    case_begin("event_select_rules");
    provider_start();
    endpoint_open(&client, AF_INET);
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        phase("mask 0x%x", (unsigned)foreign[i]);
        CHECK_WSA(san_event_select(client.s, client.event, foreign[i]), WSAEINVAL);
    }
    phase("good masks");
    CHECK_OK(san_event_select(client.s, client.event, FD_ACCEPT));
    CHECK_OK(san_event_select(client.s, client.event, FD_ACCEPT | FD_CONNECT));
    CHECK_OK(san_event_select(client.s, client.event, 0));
    CHECK_OK(san_event_select(client.s, NULL, 0));

    phase("a new event replaces the old one");
    endpoint_listen(&listener, AF_INET, 4);
    other = event_open();
    CHECK_OK(san_event_select(listener.s, other, FD_ACCEPT));
    begun = endpoint_connect(&client, &listener.local);
    CHECK_WSA(begun, WSAEWOULDBLOCK);
    CHECK(event_wait(other, WAIT_SECONDS * 1000));
    CHECK(!event_is_set(listener.event));

    phase("no event named: nothing is signalled, the record is kept");
    CHECK_OK(san_event_select(client.s, NULL, 0));
    endpoint_accept(&listener, &accepted);
    CHECK(!event_wait(client.event, 300));

    phase("selected after it happened");
    CHECK_OK(san_event_select(client.s, client.event, FD_CONNECT));
    CHECK(event_wait(client.event, WAIT_SECONDS * 1000));
    memset(&events, 0, sizeof events);
    CHECK_OK(san_enum_events(client.s, client.event, &events));
    CHECK_EQ(events.lNetworkEvents, FD_CONNECT);
    CHECK_EQ(events.iErrorCode[FD_CONNECT_BIT], 0);
    CHECK(!event_is_set(client.event));

    phase("taken out once");
    CHECK_OK(san_enum_events(client.s, NULL, &events));
    CHECK_EQ(events.lNetworkEvents, 0);
    CHECK_OK(san_event_select(client.s, client.event, FD_CONNECT));
    CHECK(!event_wait(client.event, 100));

    phase("a request waiting when FD_ACCEPT is selected");
    endpoint_close(&accepted);
    endpoint_close(&client);
    CHECK_OK(san_enum_events(listener.s, other, &events));
    CHECK_OK(san_event_select(listener.s, NULL, 0));
    endpoint_open(&client, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    CHECK(!event_wait(listener.event, 200));
    CHECK_OK(san_event_select(listener.s, listener.event, FD_ACCEPT));
    endpoint_await_request(&listener);
    endpoint_accept(&listener, &accepted);
    CHECK_OK(endpoint_connected(&client, begun));
    message_pass(&client, &accepted, 20, 1);
    endpoint_close(&accepted);
    endpoint_close(&client);
    endpoint_close(&listener);
    event_close(other);
    provider_stop();
    return 0;
}
