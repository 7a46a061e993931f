/*
 * A second WSPConnect is WSAEALREADY while the first goes on and WSAEISCONN when it has succeeded;
 * neither disturbs the connection.
 * req: WSD-08
 */
#include "pair.h"

int main(void)
{
    struct endpoint listener;
    struct pair pair;
    int begun, length;

    case_begin("connect_twice");
    provider_start();
    endpoint_listen(&listener, AF_INET, 4);
    length = address_length(&listener.local);
    endpoint_open(&pair.a, AF_INET);
    begun = endpoint_connect(&pair.a, &listener.local);
    CHECK_WSA(begun, WSAEWOULDBLOCK);
    CHECK_WSA(san_connect(pair.a.s, &listener.local, length), WSAEALREADY);
    endpoint_await_request(&listener);
    CHECK_WSA(san_connect(pair.a.s, &listener.local, length), WSAEALREADY);
    CHECK(san_listen(pair.a.s, 4) != 0); /* nor can it listen now */

    endpoint_accept(&listener, &pair.b);
    CHECK_OK(endpoint_connected(&pair.a, begun));
    CHECK_WSA(san_connect(pair.a.s, &listener.local, length), WSAEISCONN);
    CHECK_WSA(san_connect(pair.b.s, &listener.local, length), WSAEISCONN);
    CHECK(!event_wait(listener.event, 100)); /* no second request was made */
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
