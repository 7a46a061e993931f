/*
 * Where somebody listens on TCP but not on the SAN, a connect must not fail with one of the three
 * codes that promise that TCP would fail too.
 * req: WSD-08 WSD-18
 */
#include <unistd.h>

#include "pair.h"

int main(void)
{
    struct endpoint client;
    union address target;
    int tcp, code;

    case_begin("tcp_only_listener");
    provider_start();
    test_address(AF_INET, &target);
    tcp = tcp_hold(&target, true);
    endpoint_open(&client, AF_INET);
    code = endpoint_connected(&client, endpoint_connect(&client, &target));
    CHECK(code != 0);
    if (code == WSAECONNRESET || code == WSAECONNREFUSED || code == WSAEHOSTUNREACH)
        fail("the connect failed with %s, which forbids TCP, but TCP would succeed",
             code_name(code));
    CHECK_WSA_IN(code, WSAETIMEDOUT, WSAEADDRNOTAVAIL, WSAENETUNREACH);
    endpoint_close(&client);
    close(tcp);
    provider_stop();
    return 0;
}
