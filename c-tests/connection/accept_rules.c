/*
 * WSPAccept: an empty queue is WSAEWOULDBLOCK, a socket that does not listen WSAEINVAL; addresses
 * need not be asked for; the condition function runs on the calling thread, may call the provider,
 * and a result that is none of the three is an error and no connection.
 * req: WSD-07
 */
#include <pthread.h>

#include "pair.h"

static struct endpoint listener;
static pthread_t caller;
static unsigned runs;

static int call_provider(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                         LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g,
                         DWORD_PTR dwCallbackData)
{
    DWORD value;
    int length = (int)sizeof value;
    WSANETWORKEVENTS events;
    struct pair pair;
    SOCKET s;

    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeId;
    (void)lpCalleeData;
    (void)g;
    (void)dwCallbackData;
    runs++;
    CHECK(pthread_equal(pthread_self(), caller));
    phase("calling the provider in the condition function");
    CHECK_WSA_IN(san_getsockopt(listener.s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, &value, &length), 0,
                 WSAENOPROTOOPT);
    CHECK_OK(san_enum_events(listener.s, NULL, &events));
    CHECK_OK(san_listen(listener.s, 8));
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    CHECK_OK(san_close(s));
    pair_open(&pair, AF_INET); /* a whole connection elsewhere */
    pair_exchange(&pair);
    pair_close(&pair);
    return CF_ACCEPT;
}

static int answer_with_nonsense(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS,
                                LPQOS lpGQOS, LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g,
                                DWORD_PTR dwCallbackData)
{
    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeId;
    (void)lpCalleeData;
    (void)g;
    (void)dwCallbackData;
    return 4711;
}

int main(void)
{
    struct endpoint client, accepted, idle;
    struct pair pair;
    SOCKET s;
    int begun, code;

    case_begin("accept_rules");
    provider_start();
    caller = pthread_self();

    phase("sockets that do not listen");
    endpoint_open(&idle, AF_INET);
    CHECK_WSA(endpoint_accept_if(&idle, &accepted, accept_always, 0), WSAEINVAL);
    endpoint_close(&idle);
    pair_open(&pair, AF_INET);
    CHECK_WSA(endpoint_accept_if(&pair.a, &accepted, accept_always, 0), WSAEINVAL);
    CHECK_WSA(endpoint_accept_if(&pair.b, &accepted, accept_always, 0), WSAEINVAL);
    pair_close(&pair);

    phase("an empty queue");
    endpoint_listen(&listener, AF_INET, 4);
    for (int i = 0; i < 3; i++)
        CHECK_WSA(endpoint_accept_if(&listener, &accepted, call_provider, 0), WSAEWOULDBLOCK);
    CHECK_EQ(runs, 0);

    phase("no address asked for");
    endpoint_open(&client, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    endpoint_await_request(&listener);
    accepted.tcp = -1;
    accepted.event = NULL;
    CHECK_OK(san_accept(listener.s, NULL, call_provider, 0, &accepted.s, &accepted.handle));
    CHECK_EQ(runs, 1);
    CHECK_OK(endpoint_connected(&client, begun));
    message_pass(&client, &accepted, 10, 1);
    endpoint_close(&client);
    endpoint_close(&accepted);

    phase("a condition result that does not exist");
    endpoint_open(&client, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    endpoint_await_request(&listener);
    CHECK_WSA_IN(endpoint_accept_if(&listener, &accepted, answer_with_nonsense, 0), WSAEINVAL,
                 WSAECONNREFUSED);
    CHECK_WSA(endpoint_connected(&client, begun), WSAECONNREFUSED);
    endpoint_close(&client);

    phase("no condition function");
    endpoint_open(&client, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    endpoint_await_request(&listener);
    code = san_accept(listener.s, NULL, NULL, 0, &s, &accepted.handle);
    CHECK_WSA_IN(code, 0, WSAEFAULT, WSAEINVAL);
    if (code == 0) {
        CHECK_OK(endpoint_connected(&client, begun));
        CHECK_OK(san_close(s));
    }
    endpoint_close(&client);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
