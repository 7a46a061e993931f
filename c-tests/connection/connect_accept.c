/*
 * The plain way to a connection: EventSelect, Connect in the background, FD_ACCEPT, the condition
 * function with both addresses, FD_CONNECT with 0 in slot 4, data both ways.
 * req: WSD-07 WSD-08
 */
#include "connect_accept.h"

#include <string.h>

#include "pair.h"

struct seen {
    unsigned calls;
    DWORD_PTR context;
    union address caller, callee;
    int caller_length, callee_length;
};

static struct seen seen;

static int look(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g, DWORD_PTR dwCallbackData)
{
    (void)lpSQOS;
    (void)lpGQOS;
    (void)g;
    seen.calls++;
    seen.context = dwCallbackData;
    CHECK(lpCallerId != NULL && lpCalleeId != NULL);
    CHECK(lpCallerId->len <= sizeof seen.caller && lpCalleeId->len <= sizeof seen.callee);
    memcpy(&seen.caller, lpCallerId->buf, lpCallerId->len);
    memcpy(&seen.callee, lpCalleeId->buf, lpCalleeId->len);
    seen.caller_length = (int)lpCallerId->len;
    seen.callee_length = (int)lpCalleeId->len;
    /* No caller data was given. */
    CHECK(lpCallerData == NULL || lpCallerData->len == 0);
    CHECK(lpCalleeData == NULL || lpCalleeData->len == 0 || lpCalleeData->buf != NULL);
    return CF_ACCEPT;
}

void connect_accept(int family)
{
    const DWORD_PTR context = (DWORD_PTR)0x8877665544332211u;
    struct endpoint listener;
    struct pair pair;
    WSANETWORKEVENTS events;
    union address peer;
    int begun, code, length;
    unsigned created;

    endpoint_listen(&listener, family, 4);
    endpoint_open(&pair.a, family);

    phase("connecting");
    begun = endpoint_connect(&pair.a, &listener.local);
    CHECK_WSA(begun, WSAEWOULDBLOCK);
    endpoint_await_request(&listener);
    sleep_ms(50);
    CHECK(!event_is_set(pair.a.event)); /* nobody has accepted yet */

    phase("accepting");
    created = switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE);
    memset(&pair.b, 0, sizeof pair.b);
    pair.b.tcp = -1;
    length = (int)sizeof peer;
    memset(&peer, 0, sizeof peer);
    code = 0;
    switch_take_created();
    pair.b.s = san.table.lpWSPAccept(listener.s, &peer.any, &length, look, context, &code);
    pair.b.handle = switch_take_created();
    CHECK_WSA(pair.b.s == INVALID_SOCKET ? code : 0, 0);
    CHECK_EQ(switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE), created + 1);
    CHECK(pair.b.handle != NO_HANDLE);
    CHECK(pair.b.s != listener.s && pair.b.s != pair.a.s);

    CHECK_EQ(seen.calls, 1);
    CHECK_EQ(seen.context, context);
    check_address(&seen.caller, seen.caller_length, &pair.a.local, "the caller id");
    check_address(&seen.callee, seen.callee_length, &listener.local, "the callee id");
    check_address(&peer, length, &pair.a.local, "the address from WSPAccept");

    phase("the outcome of the connect");
    CHECK(event_wait(pair.a.event, WAIT_SECONDS * 1000));
    memset(&events, 0x55, sizeof events);
    CHECK_OK(san_enum_events(pair.a.s, pair.a.event, &events));
    CHECK_EQ(events.lNetworkEvents, FD_CONNECT);
    CHECK_EQ(events.iErrorCode[FD_CONNECT_BIT], 0);
    for (int i = 0; i < FD_MAX_EVENTS; i++)
        if (i != FD_CONNECT_BIT)
            CHECK_EQ(events.iErrorCode[i], 0x55555555);
    CHECK(!event_is_set(pair.a.event));
    CHECK_OK(san_enum_events(pair.a.s, pair.a.event, &events));
    CHECK_EQ(events.lNetworkEvents, 0);

    pair_exchange(&pair);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
}
