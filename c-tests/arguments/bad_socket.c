/*
 * Every function answers INVALID_SOCKET, and other values that never were a socket of this
 * provider, with WSAENOTSOCK; no upcall is made and the healthy sockets stay as they are.
 * req: WSD-11
 */
#include "calls.h"

int main(void)
{
    static const SOCKET values[] = {INVALID_SOCKET,     0, INVALID_SOCKET - 1,
                                    (SOCKET)0x7FFFFFFF, (SOCKET)0x80000000u,
                                    (SOCKET)1 << 63,    (SOCKET)0xDEADBEEFDEADBEEFu};
    struct material material;
    struct pair pair;

    case_begin("bad_socket");
    provider_start();
    pair_open(&pair, AF_INET);
    material_open(&material, pair.a.s);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        check_no_socket(values[i], &material);
    pair_exchange(&pair);
    material_close(&material, pair.a.s);
    pair_close(&pair);
    provider_stop();
    return 0;
}
