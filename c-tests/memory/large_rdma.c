/*
 * Transfers as large as SO_MAX_RDMA_SIZE allows, and regions larger than one transfer, moved in
 * several with growing offsets: every byte arrives.
 * req: WSD-14 WSD-20
 */
#include "pair.h"

enum { REGION = 48 << 20 };

int main(void)
{
    struct window window;
    struct area area;
    struct pair pair;
    DWORD step;

    case_begin("large_rdma");
    provider_start();
    step = san.max_rdma < REGION ? san.max_rdma : REGION;
    pair_open(&pair, AF_INET);
    window = window_open(pair.b.s, REGION, MEM_READWRITE);
    area = area_open(pair.a.s, REGION, MEM_READWRITE);
    for (int pass = 0; pass < 3; pass++) {
        bool write = pass != 1;
        unsigned char *source = write ? area.base : window.base;
        unsigned char *target = write ? window.base : area.base;

        if (!write && san.rdma_read == NULL)
            continue;
        if (pass == 2)
            step = step / 3 + 1; /* several, whatever the limit */
        pattern_fill(source, REGION, (uint32_t)pass + 50);
        for (DWORD at = 0; at < REGION; at += step) {
            DWORD length = REGION - at < step ? REGION - at : step;
            struct op op;

            phase("pass %d, %u bytes at %u", pass, length, at);
            op_init(&op, POLL);
            CHECK_POSTED(write ? area_write(&area, at, length, &window, at, &op)
                               : area_read(&area, at, length, &window, at, &op));
            CHECK_OK(op_wait(pair.a.s, &op));
            CHECK_EQ(op.bytes, length);
        }
        pair_exchange(&pair);
        pattern_check(target, REGION, (uint32_t)pass + 50, "the moved region");
    }
    area_close(&area);
    window_close(&window);
    pair_close(&pair);
    provider_stop();
    return 0;
}
