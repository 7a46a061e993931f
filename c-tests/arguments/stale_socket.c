/*
 * Every function answers a socket that was closed, in whatever state it was, with WSAENOTSOCK, also
 * when newer sockets exist.
 * req: WSD-11
 */
#include "calls.h"

enum { STATES = 7, ROUNDS = 4, NEWER = 100 };

int main(void)
{
    SOCKET stale[STATES], newer[NEWER];
    struct endpoint fresh, bound, listening, connecting, nobody;
    struct material material;
    struct pair pair, other;
    union address target;
    int tcp;

    case_begin("stale_socket");
    provider_start();
    pair_open(&pair, AF_INET);
    material_open(&material, pair.a.s);

    phase("closing sockets in every state");
    CHECK_OK(san_socket(AF_INET, &fresh.s, &fresh.handle));
    stale[0] = fresh.s;
    CHECK_OK(san_close(fresh.s));

    endpoint_open(&bound, AF_INET);
    stale[1] = bound.s;
    endpoint_close(&bound);

    endpoint_listen(&listening, AF_INET, 4);
    endpoint_open(&connecting, AF_INET);
    CHECK_WSA_IN(endpoint_connect(&connecting, &listening.local), 0, WSAEWOULDBLOCK);
    stale[2] = connecting.s;
    endpoint_close(&connecting);
    stale[3] = listening.s;
    endpoint_close(&listening);

    pair_open(&other, AF_INET);
    stale[4] = other.a.s;
    stale[5] = other.b.s;
    pair_close(&other);

    test_address(AF_INET, &target);
    tcp = tcp_hold(&target, false);
    endpoint_open(&nobody, AF_INET);
    CHECK(endpoint_connected(&nobody, endpoint_connect(&nobody, &target)) != 0);
    stale[6] = nobody.s;
    endpoint_close(&nobody);
    (void)tcp;

    for (int i = 0; i < STATES; i++)
        check_no_socket(stale[i], &material);

    phase("with newer sockets");
    for (int round = 0; round < ROUNDS; round++) { /* whatever is reused is reused by then */
        for (int i = 0; i < NEWER; i++) {
            CHECK_OK(san_socket(AF_INET, &newer[i], NULL));
            for (int k = 0; k < STATES; k++)
                if (newer[i] == stale[k])
                    fail("the descriptor %#llx was used again", (unsigned long long)newer[i]);
        }
        for (int i = 0; i < STATES; i++)
            check_no_socket(stale[i], &material);
        for (int i = 0; i < NEWER; i++)
            CHECK_OK(san_close(newer[i]));
    }

    pair_exchange(&pair);
    material_close(&material, pair.a.s);
    pair_close(&pair);
    provider_stop();
    return 0;
}
