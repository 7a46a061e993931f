/*
 * A listener on the wildcard address takes requests for the host's addresses; the condition
 * function learns which one was meant.
 * req: WSD-06 WSD-07
 */
#include <stdlib.h>
#include <string.h>

#include "pair.h"

static union address callee;

static int note_callee(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                       LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g,
                       DWORD_PTR dwCallbackData)
{
    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeData;
    (void)g;
    (void)dwCallbackData;
    memset(&callee, 0, sizeof callee);
    memcpy(&callee, lpCalleeId->buf, lpCalleeId->len);
    return CF_ACCEPT;
}

int main(void)
{
    struct endpoint listener;
    union address target;
    struct pair pair;
    int begun;

    case_begin("wildcard_listener");
    provider_start();
    memset(&listener, 0, sizeof listener);
    listener.local.v4.sin_family = AF_INET;
    listener.local.v4.sin_addr.s_addr = INADDR_ANY;
    listener.tcp = tcp_hold(&listener.local, true);
    CHECK_OK(san_socket(AF_INET, &listener.s, &listener.handle));
    listener.event = event_open();
    CHECK_OK(san_bind(listener.s, &listener.local, address_length(&listener.local)));
    CHECK_OK(san_listen(listener.s, 4));
    CHECK_OK(san_event_select(listener.s, listener.event, FD_ACCEPT));

    test_address(AF_INET, &target);
    address_set_port(&target, address_port(&listener.local));
    for (int i = 0; i < 3; i++) {
        /* All of 127/8 is the host's; a device has the one address that it is tested with. */
        if (getenv("WSD_TEST_ADDRESS") == NULL)
            target.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)i);
        phase("connection %d", i);
        endpoint_open(&pair.a, AF_INET);
        begun = endpoint_connect(&pair.a, &target);
        CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
        endpoint_await_request(&listener);
        CHECK_OK(endpoint_accept_if(&listener, &pair.b, note_callee, 0));
        check_address(&callee, address_length(&callee), &target, "the callee id");
        check_address(&pair.b.peer, address_length(&pair.a.local), &pair.a.local, "the peer");
        CHECK_OK(endpoint_connected(&pair.a, begun));
        pair_exchange(&pair);
        pair_close(&pair);
    }
    endpoint_close(&listener);

    phase("the listener has gone from every address");
    endpoint_open(&pair.a, AF_INET);
    CHECK_WSA_IN(endpoint_connected(&pair.a, endpoint_connect(&pair.a, &target)), WSAECONNRESET,
                 WSAECONNREFUSED);
    endpoint_close(&pair.a);
    provider_stop();
    return 0;
}
