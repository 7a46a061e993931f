/*
 * The condition function runs without locks: it may close the listener it serves. WSPAccept comes
 * back, and the peer gets a definite answer that fits what WSPAccept returned.
 * req: WSD-07
 */
#include "pair.h"

static struct endpoint listener;

static int close_listener(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                          LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g,
                          DWORD_PTR dwCallbackData)
{
    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeId;
    (void)lpCalleeData;
    (void)g;
    phase("closing the listener in its condition function");
    CHECK_OK(san_close(listener.s));
    return (int)dwCallbackData;
}

static void run(int answer)
{
    struct endpoint client, second, accepted;
    int begun, begun_second, code, seen;

    endpoint_listen(&listener, AF_INET, 4);
    endpoint_open(&client, AF_INET);
    endpoint_open(&second, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    endpoint_await_request(&listener);
    begun_second = endpoint_connect(&second, &listener.local);
    endpoint_await_request(&listener);

    code = endpoint_accept_if(&listener, &accepted, close_listener, (DWORD_PTR)answer);
    phase("after WSPAccept with answer %d gave %s", answer, code_name(code));
    endpoint_forget(&listener);
    seen = endpoint_connected(&client, begun);
    if (code == 0) {
        CHECK_EQ(answer, CF_ACCEPT);
        CHECK_OK(seen);
        message_pass(&client, &accepted, 50, 3);
        endpoint_close(&accepted);
    } else {
        CHECK_WSA_IN(code, WSAENOTSOCK, WSAECONNREFUSED, WSAEINVAL, WSA_OPERATION_ABORTED,
                     WSAECONNABORTED);
        CHECK_WSA_IN(seen, WSAECONNREFUSED, WSAECONNRESET);
    }
    /* Nobody will ever take this one. */
    CHECK_WSA_IN(endpoint_connected(&second, begun_second), WSAECONNREFUSED, WSAECONNRESET);
    endpoint_close(&second);
    endpoint_close(&client);
}

int main(void)
{
    case_begin("condition_closes_listener");
    provider_start();
    run(CF_ACCEPT);
    run(CF_REJECT);
    provider_stop();
    return 0;
}
