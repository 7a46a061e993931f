/*
 * CF_DEFER: WSPAccept gives WSATRY_AGAIN, the peer hears nothing, the request stays the first in
 * the queue and can be accepted later.
 * req: WSD-07
 */
#include "pair.h"

static int later(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                 LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g, DWORD_PTR dwCallbackData)
{
    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeId;
    (void)lpCalleeData;
    (void)g;
    (void)dwCallbackData;
    return CF_DEFER;
}

int main(void)
{
    struct endpoint listener, first, second, accepted;
    int begun_first, begun_second;
    unsigned created;

    case_begin("defer");
    provider_start();
    endpoint_listen(&listener, AF_INET, 4);
    endpoint_open(&first, AF_INET);
    endpoint_open(&second, AF_INET);
    begun_first = endpoint_connect(&first, &listener.local);
    endpoint_await_request(&listener);
    begun_second = endpoint_connect(&second, &listener.local);
    endpoint_await_request(&listener);

    created = switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE);
    for (int i = 0; i < 3; i++)
        CHECK_WSA(endpoint_accept_if(&listener, &accepted, later, 0), WSATRY_AGAIN);
    CHECK_EQ(switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE), created);
    CHECK(!event_wait(first.event, 100));
    CHECK(!event_is_set(second.event));

    phase("accepting what was deferred");
    endpoint_accept(&listener, &accepted);
    check_address(&accepted.peer, address_length(&first.local), &first.local, "the first peer");
    CHECK_OK(endpoint_connected(&first, begun_first));
    message_pass(&first, &accepted, 10, 1);
    endpoint_close(&accepted);
    endpoint_accept(&listener, &accepted);
    check_address(&accepted.peer, address_length(&second.local), &second.local, "the second peer");
    CHECK_OK(endpoint_connected(&second, begun_second));
    endpoint_close(&accepted);
    endpoint_close(&first);
    endpoint_close(&second);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
