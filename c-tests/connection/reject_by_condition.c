/*
 * CF_REJECT refuses: WSPAccept and the peer's connect both give WSAECONNREFUSED, no switch handle
 * is made, and the peer sees nothing before the condition function has returned. The next request
 * is served as usual.
 * req: WSD-07 WSD-08
 */
#include <pthread.h>

#include "pair.h"

static struct endpoint client;

static int think_then_reject(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                             LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g,
                             DWORD_PTR dwCallbackData)
{
    WSANETWORKEVENTS events;

    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeId;
    (void)lpCalleeData;
    (void)g;
    phase("thinking in the condition function");
    CHECK_EQ(dwCallbackData, 77);
    CHECK(!event_wait(client.event, 300));
    CHECK_OK(san_enum_events(client.s, NULL, &events));
    CHECK_EQ(events.lNetworkEvents, 0);
    return CF_REJECT;
}

int main(void)
{
    struct endpoint listener, accepted;
    struct pair pair;
    WSANETWORKEVENTS events;
    unsigned created;
    int begun;

    case_begin("reject_by_condition");
    provider_start();
    endpoint_listen(&listener, AF_INET, 4);
    endpoint_open(&client, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    CHECK_WSA(begun, WSAEWOULDBLOCK);
    endpoint_await_request(&listener);

    created = switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE);
    CHECK_WSA(endpoint_accept_if(&listener, &accepted, think_then_reject, 77), WSAECONNREFUSED);
    CHECK_EQ(switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE), created);

    phase("what the peer sees");
    CHECK(event_wait(client.event, WAIT_SECONDS * 1000));
    CHECK_OK(san_enum_events(client.s, client.event, &events));
    CHECK_EQ(events.lNetworkEvents, FD_CONNECT);
    CHECK_WSA(events.iErrorCode[FD_CONNECT_BIT], WSAECONNREFUSED);
    endpoint_close(&client);

    phase("the next request");
    CHECK_WSA(endpoint_accept_if(&listener, &accepted, accept_always, 0), WSAEWOULDBLOCK);
    pair_open_through(&pair, &listener);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
