/*
 * Closing a listener refuses what is queued, at once and for certain.
 * req: WSD-06 WSD-11
 */
#include "pair.h"

enum { QUEUED = 5 };

int main(void)
{
    struct endpoint listener, clients[QUEUED];
    int begun[QUEUED];

    case_begin("listener_closing");
    provider_start();
    endpoint_listen(&listener, AF_INET, QUEUED);
    for (int i = 0; i < QUEUED; i++) {
        endpoint_open(&clients[i], AF_INET);
        begun[i] = endpoint_connect(&clients[i], &listener.local);
        endpoint_await_request(&listener);
    }
    endpoint_close(&listener);
    for (int i = 0; i < QUEUED; i++) {
        phase("client %d", i);
        CHECK_WSA_IN(endpoint_connected(&clients[i], begun[i]), WSAECONNREFUSED, WSAECONNRESET);
        endpoint_close(&clients[i]);
    }
    provider_stop();
    return 0;
}
