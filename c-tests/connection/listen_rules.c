/*
 * WSPListen wants a bound socket that is not connected; called again it changes the backlog; the
 * event may be selected before or after it.
 * req: WSD-06
 */
#include "pair.h"

static void open_bound(struct endpoint *endpoint)
{
    endpoint_open(endpoint, AF_INET);
}

int main(void)
{
    struct endpoint listener, first, second, accepted;
    struct pair pair;
    SOCKET s;
    int begun, other;

    case_begin("listen_rules");
    provider_start();

    phase("listen unbound");
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    CHECK_WSA(san_listen(s, 4), WSAEINVAL);
    CHECK_OK(san_close(s));

    phase("listen on a connected socket");
    pair_open(&pair, AF_INET);
    CHECK_WSA(san_listen(pair.a.s, 4), WSAEISCONN);
    CHECK_WSA(san_listen(pair.b.s, 4), WSAEISCONN);
    pair_exchange(&pair);
    pair_close(&pair);

    phase("event selected before listen");
    open_bound(&listener);
    CHECK_OK(san_event_select(listener.s, listener.event, FD_ACCEPT | FD_CONNECT));
    CHECK_OK(san_listen(listener.s, 1));
    pair_open_through(&pair, &listener);
    pair_exchange(&pair);
    pair_close(&pair);

    phase("a larger backlog");
    open_bound(&first);
    open_bound(&second);
    begun = endpoint_connect(&first, &listener.local);
    endpoint_await_request(&listener);
    CHECK_WSA(endpoint_connected(&second, endpoint_connect(&second, &listener.local)),
              WSAECONNREFUSED);
    endpoint_close(&second);
    CHECK_OK(san_listen(listener.s, 3));
    open_bound(&second);
    other = endpoint_connect(&second, &listener.local);
    endpoint_await_request(&listener);
    endpoint_accept(&listener, &accepted);
    CHECK_OK(endpoint_connected(&first, begun));
    endpoint_close(&accepted);
    endpoint_close(&first);
    endpoint_accept(&listener, &accepted);
    CHECK_OK(endpoint_connected(&second, other));
    endpoint_close(&accepted);
    endpoint_close(&second);

    phase("as many as the provider likes");
    CHECK_OK(san_listen(listener.s, WSD_SOMAXCONN));
    pair_open_through(&pair, &listener);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
