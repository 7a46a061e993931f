/*
 * A write that does not stay inside the exposed region fails and changes no byte of it or around
 * it: one byte too long, one byte too far, an offset at the end, an offset that wraps.
 * req: WSD-13
 */
#include <stdio.h>

#include "violate.h"

enum { LENGTH = 1000, MARGIN = 200 };

static void run(DWORD offset, DWORD length, enum how how)
{
    struct memory memory = memory_new(LENGTH + 2 * MARGIN);
    struct window window;
    struct pair pair;
    char what[100];

    snprintf(what, sizeof what, "a write of %u bytes at %u of %d", length, offset, LENGTH);
    pair_open(&pair, AF_INET);
    memset(memory.base, 0x11, memory.length);
    memset(&window, 0, sizeof window);
    window.descriptor_length = sizeof window.descriptor;
    CHECK_OK(san_register_rdma(pair.b.s, memory.base + MARGIN, LENGTH, MEM_READWRITE,
                               window.descriptor, &window.descriptor_length));
    violate_write(&pair, &window, offset, length, how, what);
    bytes_check(memory.base, memory.length, 0x11, what);
    pair_close(&pair);
    memory_free(&memory);
}

int main(void)
{
    static const struct {
        DWORD offset, length;
    } wrong[] = {{0, LENGTH + 1},
                 {1, LENGTH},
                 {LENGTH, 1},
                 {LENGTH - 1, 2},
                 {LENGTH + 1, 1},
                 {LENGTH + MARGIN, 1},
                 {0xFFFFFFFFu, 1},
                 {0xFFFFFFFFu, 2},
                 {0xFFFFFFFFu - 10, 100},
                 {0x80000000u, LENGTH}};

    case_begin("write_violation");
    provider_start();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        run(wrong[i].offset, wrong[i].length, i % 2 ? POLL : NOTIFY);
    provider_stop();
    return 0;
}
