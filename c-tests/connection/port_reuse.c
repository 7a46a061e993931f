/*
 * An address that was closed can be used again at once, by a listener and by a connection between
 * the same two addresses.
 * req: WSD-06 WSD-08
 */
#include "pair.h"

enum { ROUNDS = 30 };

int main(void)
{
    union address server, client;
    int server_tcp, client_tcp;

    case_begin("port_reuse");
    provider_start();
    test_address(AF_INET, &server);
    test_address(AF_INET, &client);
    server_tcp = tcp_hold(&server, true);
    client_tcp = tcp_hold(&client, false);
    for (int i = 0; i < ROUNDS; i++) {
        struct endpoint listener;
        struct pair pair;
        int begun;

        phase("round %d", i);
        CHECK_OK(san_socket(AF_INET, &listener.s, &listener.handle));
        listener.event = event_open();
        listener.tcp = -1;
        listener.local = server;
        CHECK_OK(san_bind(listener.s, &server, address_length(&server)));
        CHECK_OK(san_listen(listener.s, 4));
        CHECK_OK(san_event_select(listener.s, listener.event, FD_ACCEPT));

        CHECK_OK(san_socket(AF_INET, &pair.a.s, &pair.a.handle));
        pair.a.event = event_open();
        pair.a.tcp = -1;
        CHECK_OK(san_bind(pair.a.s, &client, address_length(&client)));
        begun = endpoint_connect(&pair.a, &server);
        CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
        endpoint_await_request(&listener);
        endpoint_accept(&listener, &pair.b);
        check_address(&pair.b.peer, address_length(&client), &client, "the peer");
        CHECK_OK(endpoint_connected(&pair.a, begun));
        pair_exchange(&pair);
        if (i % 2 == 0)
            endpoint_close(&listener);
        pair_close(&pair);
        if (i % 2 != 0)
            endpoint_close(&listener);
    }
    (void)server_tcp;
    (void)client_tcp;
    provider_stop();
    return 0;
}
