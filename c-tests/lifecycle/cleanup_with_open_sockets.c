/*
 * The last WSPCleanup closes what is still open: sockets in every state, with operations pending;
 * all their switch handles are given back and nothing completes twice. Then a new start works.
 * req: WSD-02 WSD-11
 */
#include "pair.h"

enum { PENDING = 5, LENGTH = 64, ROUNDS = 3 };

int main(void)
{
    case_begin("cleanup_with_open_sockets");
    provider_start();
    for (int round = 0; round < ROUNDS; round++) {
        struct endpoint listener, bound, connecting;
        struct op recvs[PENDING];
        struct pair pair;
        struct area in;
        SOCKET fresh;

        phase("round %d", round);
        CHECK_OK(san_socket(AF_INET, &fresh, NULL));
        endpoint_open(&bound, AF_INET);
        endpoint_listen(&listener, AF_INET, 4);
        endpoint_open(&connecting, AF_INET);
        pair_open(&pair, AF_INET);
        pair_exchange(&pair);
        CHECK_WSA_IN(endpoint_connect(&connecting, &listener.local), 0, WSAEWOULDBLOCK);
        in = area_open(pair.a.s, PENDING * LENGTH, MEM_WRITE);
        for (int i = 0; i < PENDING; i++) {
            op_init(&recvs[i], i % 2 ? POLL : NOTIFY);
            CHECK_WSA(san_recv_bytes(pair.a.s, in.base + i * LENGTH, LENGTH, &recvs[i]),
                      WSA_IO_PENDING);
        }
        phase("cleaning up with everything open, round %d", round);
        provider_stop();
        /* Whether operations that clean-up cancels are notified is left open; none says success. */
        for (int i = 0; i < PENDING; i++)
            if (op_upcalls(&recvs[i]) != 0)
                CHECK_WSA_IN((int)recvs[i].upcall_error, WSA_OPERATION_ABORTED, WSAECONNRESET);
        phase("sockets of before the clean-up");
        CHECK_OK(provider_startup());
        CHECK_WSA(san_close(fresh), WSAENOTSOCK);
        CHECK_WSA(san_close(pair.a.s), WSAENOTSOCK);
        CHECK_WSA(san_close(pair.b.s), WSAENOTSOCK);
        CHECK_WSA(san_listen(listener.s, 3), WSAENOTSOCK);
        endpoint_forget(&bound);
        endpoint_forget(&listener);
        endpoint_forget(&connecting);
        endpoint_forget(&pair.a);
        endpoint_forget(&pair.b);
        area_forget(&in);

        phase("a connection after the new start");
        pair_open(&pair, AF_INET);
        pair_exchange(&pair);
        pair_close(&pair);
    }
    provider_stop();
    return 0;
}
