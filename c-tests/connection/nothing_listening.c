/*
 * A connect to a port where nobody listens, over TCP neither, fails with WSAECONNRESET; the socket
 * can be closed and its port used again.
 * req: WSD-08 WSD-18
 */
#include <unistd.h>

#include "pair.h"

int main(void)
{
    struct endpoint client, gone;
    union address target;
    int tcp;

    case_begin("nothing_listening");
    provider_start();

    phase("a port that nobody listened on");
    test_address(AF_INET, &target);
    tcp = tcp_hold(&target, false);
    for (int i = 0; i < 5; i++) {
        endpoint_open(&client, AF_INET);
        CHECK_WSA(endpoint_connected(&client, endpoint_connect(&client, &target)), WSAECONNRESET);
        endpoint_close(&client);
    }
    close(tcp);

    phase("a port whose listener has closed");
    endpoint_listen(&gone, AF_INET, 4);
    target = gone.local;
    endpoint_close(&gone);
    tcp = tcp_hold(&target, false);
    endpoint_open(&client, AF_INET);
    CHECK_WSA(endpoint_connected(&client, endpoint_connect(&client, &target)), WSAECONNRESET);
    CHECK_EQ(switch_count(UPCALL_CLOSE_HANDLE, client.handle), 0);
    endpoint_close(&client);
    close(tcp);
    provider_stop();
    return 0;
}
