/*
 * Transfers on sockets that are not connected are WSAENOTCONN: fresh, bound, listening, connecting.
 * req: WSD-10 WSD-12
 */
#include "kinds.h"

static struct stage stage;

static void refused(SOCKET s, const char *state)
{
    WSABUFEX piece = {8, (char *)stage.near.base, stage.near.handle};
    struct op op;

    phase("transfers on a socket that is %s", state);
    op_init(&op, NOTIFY);
    CHECK_WSA(san_send_bytes(s, stage.near.base, 8, &op), WSAENOTCONN);
    op_init(&op, NOTIFY);
    CHECK_WSA(san_recv_bytes(s, stage.near.base, 8, &op), WSAENOTCONN);
    op_init(&op, NOTIFY);
    CHECK_WSA(san_rdma_write(s, &piece, 1, stage.window.descriptor,
                             stage.window.descriptor_length, 0, &op),
              WSAENOTCONN);
    if (san.rdma_read != NULL) {
        op_init(&op, NOTIFY);
        CHECK_WSA(san_rdma_read(s, &piece, 1, stage.window.descriptor,
                                stage.window.descriptor_length, 0, &op),
                  WSAENOTCONN);
    }
}

int main(void)
{
    struct endpoint listener, client, nobody;
    union address target;
    SOCKET fresh;
    int tcp;

    case_begin("not_connected");
    provider_start();
    stage_open(&stage);
    CHECK_OK(san_socket(AF_INET, &fresh, NULL));
    refused(fresh, "fresh");
    CHECK_OK(san_close(fresh));
    endpoint_listen(&listener, AF_INET, 4);
    refused(listener.s, "listening");
    endpoint_open(&client, AF_INET);
    refused(client.s, "bound");
    CHECK_WSA(endpoint_connect(&client, &listener.local), WSAEWOULDBLOCK);
    refused(client.s, "connecting");
    endpoint_await_request(&listener);
    refused(client.s, "connecting, with the request waiting");
    endpoint_close(&client);
    endpoint_close(&listener);

    test_address(AF_INET, &target);
    tcp = tcp_hold(&target, false);
    (void)tcp;
    endpoint_open(&nobody, AF_INET);
    CHECK(endpoint_connected(&nobody, endpoint_connect(&nobody, &target)) != 0);
    refused(nobody.s, "one that failed to connect");
    endpoint_close(&nobody);

    stage_close(&stage);
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), 0);
    provider_stop();
    return 0;
}
