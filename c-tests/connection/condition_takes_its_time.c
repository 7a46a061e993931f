/*
 * The condition function runs without locks and may take its time: other connections go on, new
 * requests come in, and whoever it decides about waits for it.
 * req: WSD-07
 */
#include "pair.h"

static struct endpoint listener, client, second;
static struct pair other;
static int begun, begun_second;

static int slow_condition(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
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
    phase("inside the condition function");
    pair_exchange(&other);
    begun_second = endpoint_connect(&second, &listener.local);
    CHECK_WSA(begun_second, WSAEWOULDBLOCK);
    sleep_ms(2000);
    pair_exchange(&other);
    /* Nobody has been told anything. */
    CHECK(!event_is_set(client.event));
    CHECK(!event_is_set(second.event));
    return (int)dwCallbackData;
}

static void run(int answer)
{
    struct endpoint accepted;

    endpoint_listen(&listener, AF_INET, 4);
    pair_open(&other, AF_INET);
    endpoint_open(&client, AF_INET);
    endpoint_open(&second, AF_INET);
    begun = endpoint_connect(&client, &listener.local);
    CHECK_WSA(begun, WSAEWOULDBLOCK);
    endpoint_await_request(&listener);

    phase("WSPAccept, answer %d", answer);
    CHECK_WSA(endpoint_accept_if(&listener, &accepted, slow_condition, (DWORD_PTR)answer),
              answer == CF_ACCEPT ? 0 : WSAECONNREFUSED);
    CHECK_WSA(endpoint_connected(&client, begun), answer == CF_ACCEPT ? 0 : WSAECONNREFUSED);
    if (answer == CF_ACCEPT) {
        message_pass(&accepted, &client, 50, 3);
        endpoint_close(&accepted);
    }
    phase("the request that came meanwhile");
    endpoint_await_request(&listener);
    endpoint_accept(&listener, &accepted);
    CHECK_OK(endpoint_connected(&second, begun_second));
    message_pass(&second, &accepted, 50, 4);
    endpoint_close(&accepted);
    endpoint_close(&second);
    endpoint_close(&client);
    pair_close(&other);
    endpoint_close(&listener);
}

int main(void)
{
    case_begin("condition_takes_its_time");
    provider_start();
    run(CF_ACCEPT);
    run(CF_REJECT);
    provider_stop();
    return 0;
}
