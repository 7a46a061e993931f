/*
 * With WSD_RDMA_READ=0 the provider is one without WSPRdmaRead: the lookup says WSAEOPNOTSUPP, the
 * other functions are there, and memory can still be written by the peer.
 * req: WSD-04
 */
#include <stdlib.h>

#include "pair.h"

int main(void)
{
    struct pair pair;
    struct window window;
    struct area area;
    struct op op;
    void *function;

    case_begin("rdma_read_off");
    setenv("WSD_RDMA_READ", "0", 1);
    provider_start();
    CHECK_WSA(san_extension(INVALID_SOCKET, &guid_rdma_read, &function), WSAEOPNOTSUPP);
    CHECK(function == NULL);
    CHECK(san.rdma_read == NULL);

    pair_open(&pair, AF_INET);
    pair_exchange(&pair);
    window = window_open(pair.b.s, 10000, MEM_WRITE);
    area = area_open(pair.a.s, 10000, MEM_READ);
    pattern_fill(area.base, area.length, 5);
    op_init(&op, POLL);
    CHECK_POSTED(area_write(&area, 0, area.length, &window, 0, &op));
    CHECK_OK(op_wait(pair.a.s, &op));
    pair_exchange(&pair);
    pattern_check(window.base, window.length, 5, "the written memory");
    area_close(&area);
    window_close(&window);
    pair_close(&pair);
    provider_stop();
    return 0;
}
