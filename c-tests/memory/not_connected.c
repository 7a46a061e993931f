/*
 * Memory is registered on connected sockets: on others it is WSAENOTCONN.
 * req: WSD-12
 */
#include "pair.h"

static void refused(SOCKET s, const char *state)
{
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD length = sizeof descriptor;
    struct memory memory = memory_new(64);
    HANDLE handle;

    phase("a socket that is %s", state);
    CHECK_WSA(san_register(s, memory.base, 64, MEM_READ, &handle), WSAENOTCONN);
    CHECK(handle == NULL);
    CHECK_WSA(san_register_rdma(s, memory.base, 64, MEM_READ, descriptor, &length), WSAENOTCONN);
    CHECK_WSA(san_deregister(s, (HANDLE)&memory), WSAEINVAL);
    memory_free(&memory);
}

int main(void)
{
    struct endpoint listener, client, accepted;
    SOCKET fresh;
    int begun;

    case_begin("not_connected");
    provider_start();
    CHECK_OK(san_socket(AF_INET, &fresh, NULL));
    refused(fresh, "fresh");
    CHECK_OK(san_close(fresh));
    endpoint_listen(&listener, AF_INET, 4);
    refused(listener.s, "listening");
    endpoint_open(&client, AF_INET);
    refused(client.s, "bound");
    begun = endpoint_connect(&client, &listener.local);
    CHECK_WSA(begun, WSAEWOULDBLOCK);
    refused(client.s, "connecting");
    endpoint_await_request(&listener);
    refused(client.s, "connecting, with the request waiting");
    endpoint_accept(&listener, &accepted);
    CHECK_OK(endpoint_connected(&client, begun));
    message_pass(&client, &accepted, 10, 1);
    endpoint_close(&accepted);
    endpoint_close(&client);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
