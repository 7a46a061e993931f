/*
 * After WSPDeregisterRdmaMemory the peer can no longer reach the memory, with the old descriptor
 * neither by itself nor beside a new registration of the same region with fewer rights.
 * req: WSD-13
 */
#include "violate.h"

enum { LENGTH = 700 };

static void run(bool write, bool again)
{
    struct pair pair;
    struct window window, newer;
    struct area area;
    struct op op;

    pair_open(&pair, AF_INET);
    window = window_open(pair.b.s, LENGTH, MEM_READWRITE);
    area = area_open(pair.a.s, LENGTH, MEM_READ);
    phase("a good write first");
    memset(area.base, 0x11, LENGTH);
    op_init(&op, POLL);
    CHECK_POSTED(area_write(&area, 0, LENGTH, &window, 0, &op));
    CHECK_OK(op_wait(pair.a.s, &op));
    pair_exchange(&pair);
    bytes_check(window.base, LENGTH, 0x11, "the written memory");
    area_close(&area);

    CHECK_OK(san_deregister_rdma(pair.b.s, window.descriptor, window.descriptor_length));
    if (again) {
        newer = window;
        newer.descriptor_length = sizeof newer.descriptor;
        CHECK_OK(san_register_rdma(pair.b.s, window.base, LENGTH, write ? MEM_READ : MEM_WRITE,
                                   newer.descriptor, &newer.descriptor_length));
    }
    if (write)
        violate_write(&pair, &window, 0, LENGTH, POLL, "a write after deregistration");
    else
        violate_read(&pair, &window, 0, LENGTH, POLL, "a read after deregistration");
    bytes_check(window.base, LENGTH, 0x11, "the memory after deregistration");
    pair_close(&pair);
    window_forget(&window);
}

int main(void)
{
    case_begin("after_deregister");
    provider_start();
    run(true, false);
    run(true, true);
    if (san.rdma_read != NULL) {
        run(false, false);
        run(false, true);
    }
    provider_stop();
    return 0;
}
