/*
 * WSPConnect on a listening socket is WSAEINVAL; to the wildcard address or to port 0 it is
 * WSAEADDRNOTAVAIL; caller data is refused; another family is refused. None of it takes the socket
 * out of use.
 * req: WSD-08
 */
#include <string.h>

#include "pair.h"

int main(void)
{
    struct endpoint listener, client, accepted;
    union address to;
    char text[] = "hello";
    WSABUF caller = {5, text};
    int code, begun;

    case_begin("connect_arguments");
    provider_start();
    endpoint_listen(&listener, AF_INET, 4);
    endpoint_open(&client, AF_INET);

    phase("on a listening socket");
    CHECK_WSA(san_connect(listener.s, &client.local, address_length(&client.local)), WSAEINVAL);

    CHECK_OK(san_event_select(client.s, client.event, FD_CONNECT));
    phase("to the wildcard address");
    to = listener.local;
    to.v4.sin_addr.s_addr = INADDR_ANY;
    CHECK_WSA(san_connect(client.s, &to, address_length(&to)), WSAEADDRNOTAVAIL);
    phase("to port 0");
    to = listener.local;
    address_set_port(&to, 0);
    CHECK_WSA(san_connect(client.s, &to, address_length(&to)), WSAEADDRNOTAVAIL);
    phase("to another family");
    memset(&to, 0, sizeof to);
    to.v6.sin6_family = AF_INET6;
    to.v6.sin6_addr = in6addr_loopback;
    to.v6.sin6_port = listener.local.v4.sin_port;
    CHECK_WSA_IN(san_connect(client.s, &to, address_length(&to)), WSAEAFNOSUPPORT, WSAEFAULT,
                 WSAEINVAL);
    phase("with caller data");
    code = 0;
    CHECK_EQ(san.table.lpWSPConnect(client.s, &listener.local.any, address_length(&listener.local),
                                    &caller, NULL, NULL, NULL, &code),
             SOCKET_ERROR);
    CHECK_WSA_IN(code, WSAEINVAL, WSAEPROTONOSUPPORT, WSAEOPNOTSUPP);
    CHECK(!event_wait(client.event, 100));

    phase("after all that, as usual");
    begun = san_connect(client.s, &listener.local, address_length(&listener.local));
    CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
    endpoint_await_request(&listener);
    endpoint_accept(&listener, &accepted);
    CHECK_OK(endpoint_connected(&client, begun));
    message_pass(&client, &accepted, 10, 1);
    endpoint_close(&accepted);
    endpoint_close(&client);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
