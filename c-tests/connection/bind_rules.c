/*
 * WSPBind: a second one is WSAEINVAL, an address of another host WSAEADDRNOTAVAIL, an address of
 * the wrong family WSAEFAULT; whether the address is in use is not the provider's business.
 * req: WSD-06
 */
#include <arpa/inet.h>
#include <string.h>

#include "pair.h"

int main(void)
{
    union address local, foreign, other;
    struct endpoint listener;
    struct pair pair;
    SOCKET s, second;
    int tcp, code;

    case_begin("bind_rules");
    provider_start();
    test_address(AF_INET, &local);
    tcp = tcp_hold(&local, false);
    (void)tcp;

    phase("bind twice");
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    CHECK_OK(san_bind(s, &local, address_length(&local)));
    CHECK_WSA(san_bind(s, &local, address_length(&local)), WSAEINVAL);
    other = local;
    address_set_port(&other, 1);
    CHECK_WSA(san_bind(s, &other, address_length(&other)), WSAEINVAL);

    phase("the same address on a second socket");
    CHECK_OK(san_socket(AF_INET, &second, NULL));
    code = san_bind(second, &local, address_length(&local));
    if (code == WSAEADDRINUSE)
        fail("WSPBind gave WSAEADDRINUSE, which is for the switch and TCP to decide");
    CHECK_OK(code);
    CHECK_OK(san_close(second));
    CHECK_OK(san_close(s));

    phase("an address of another host");
    foreign = local;
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    CHECK_EQ(inet_pton(AF_INET, "192.0.2.77", &foreign.v4.sin_addr), 1);
    CHECK_WSA(san_bind(s, &foreign, address_length(&foreign)), WSAEADDRNOTAVAIL);
    CHECK_EQ(inet_pton(AF_INET, "224.0.0.1", &foreign.v4.sin_addr), 1);
    CHECK_WSA(san_bind(s, &foreign, address_length(&foreign)), WSAEADDRNOTAVAIL);
    CHECK_EQ(inet_pton(AF_INET, "255.255.255.255", &foreign.v4.sin_addr), 1);
    CHECK_WSA(san_bind(s, &foreign, address_length(&foreign)), WSAEADDRNOTAVAIL);

    phase("an address of another family");
    memset(&foreign, 0, sizeof foreign);
    foreign.v6.sin6_family = AF_INET6;
    foreign.v6.sin6_addr = in6addr_loopback;
    foreign.v6.sin6_port = htons(4000);
    CHECK_WSA(san_bind(s, &foreign, (int)sizeof foreign.v6), WSAEFAULT);
    other = local;
    other.any.sa_family = AF_UNIX;
    CHECK_WSA(san_bind(s, &other, (int)sizeof other.v4), WSAEFAULT);
    other.any.sa_family = 0xFFFF;
    CHECK_WSA(san_bind(s, &other, (int)sizeof other.v4), WSAEFAULT);

    phase("a good bind after the failed ones");
    CHECK_OK(san_bind(s, &local, address_length(&local)));
    CHECK_WSA(san_bind(s, &local, address_length(&local)), WSAEINVAL);
    CHECK_OK(san_close(s));

    phase("bind in other states");
    endpoint_listen(&listener, AF_INET, 4);
    CHECK_WSA(san_bind(listener.s, &local, address_length(&local)), WSAEINVAL);
    pair_open_through(&pair, &listener);
    CHECK_WSA(san_bind(pair.a.s, &local, address_length(&local)), WSAEINVAL);
    CHECK_WSA(san_bind(pair.b.s, &local, address_length(&local)), WSAEINVAL);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);

    phase("a longer structure than needed");
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    CHECK_OK(san_bind(s, &local, (int)sizeof local.room));
    CHECK_OK(san_close(s));
    provider_stop();
    return 0;
}
