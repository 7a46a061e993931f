/*
 * A socket may be closed while it connects: that ends the attempt at once, nothing is signalled
 * afterwards, and the acceptor finds out.
 * req: WSD-08 WSD-11
 */
#include "pair.h"

enum { ROUNDS = 20 };

int main(void)
{
    struct endpoint listener, client, accepted;
    struct pair pair;

    case_begin("connect_closed_midway");
    provider_start();
    endpoint_listen(&listener, AF_INET, 64);
    for (int i = 0; i < ROUNDS; i++) {
        WSAEVENT event;
        int code;

        phase("round %d", i);
        endpoint_open(&client, AF_INET);
        event = client.event;
        CHECK_WSA(endpoint_connect(&client, &listener.local), WSAEWOULDBLOCK);
        if (i % 2 == 0)
            endpoint_await_request(&listener);
        CHECK_OK(san_close(client.s));
        CHECK(switch_await(UPCALL_CLOSE_HANDLE, client.handle, 1));
        CHECK(!event_wait(event, 10));
        endpoint_forget(&client);

        /* The request is gone, or is accepted into a connection that is reset. */
        code = endpoint_accept_if(&listener, &accepted, accept_always, 0);
        if (code == WSAEWOULDBLOCK) {
            sleep_ms(20);
            code = endpoint_accept_if(&listener, &accepted, accept_always, 0);
        }
        CHECK_WSA_IN(code, 0, WSAEWOULDBLOCK, WSAECONNRESET, WSAECONNREFUSED, WSAECONNABORTED,
                     WSAEACCES);
        if (code == 0) {
            struct memory memory = memory_new(64);
            struct op op;
            HANDLE handle;

            op_init(&op, NOTIFY);
            if (san_register(accepted.s, memory.base, 64, MEM_WRITE, &handle) == 0) {
                code = san_recv_bytes(accepted.s, memory.base, 64, &op);
                CHECK_WSA_IN(code, WSA_IO_PENDING, WSAECONNRESET, WSAECONNABORTED, WSAENOTCONN);
                if (code == WSA_IO_PENDING)
                    CHECK_WSA_IN(op_wait(accepted.s, &op), WSAECONNRESET, WSAECONNABORTED);
            }
            endpoint_close(&accepted);
            memory_free(&memory);
        }
    }
    phase("a connection after all that");
    for (;;) { /* what is left in the queue */
        int code = endpoint_accept_if(&listener, &accepted, accept_always, 0);

        if (code == WSAEWOULDBLOCK)
            break;
        if (code == 0)
            endpoint_close(&accepted);
    }
    endpoint_close(&listener);
    pair_open(&pair, AF_INET);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
