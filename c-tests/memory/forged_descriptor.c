/*
 * A descriptor with one bit changed, or made of garbage, reaches nothing outside the region it was
 * made for: what it can hit at most is that region, and reading never brings other memory.
 * req: WSD-13
 */
#include "violate.h"

enum { LENGTH = 64, MARGIN = 4096 };

static struct endpoint listener;

/* Returns whether the write was carried out. */
static bool attack(struct pair *pair, const struct window *forged)
{
    struct area area = area_open(pair->a.s, LENGTH, MEM_READ);
    bool done = false;
    struct op op;
    int code;

    memset(area.base, 0x77, LENGTH);
    op_init(&op, POLL);
    code = area_write(&area, 0, LENGTH, forged, 0, &op);
    if (code == 0 || code == WSA_IO_PENDING)
        done = op_wait(pair->a.s, &op) == 0;
    CHECK_OK(san_deregister(pair->a.s, area.handle));
    area_forget(&area);
    return done;
}

int main(void)
{
    struct memory memory;
    struct window good, forged;
    struct pair pair;
    unsigned bits, carried = 0;

    case_begin("forged_descriptor");
    provider_start();
    endpoint_listen(&listener, AF_INET, 4);
    memory = memory_new(LENGTH + 2 * MARGIN);
    bits = 0;
    for (unsigned bit = 0; bit == 0 || bit < bits; bit++) {
        memset(memory.base, 0x11, memory.length);
        pair_open_through(&pair, &listener);
        memset(&good, 0, sizeof good);
        good.descriptor_length = sizeof good.descriptor;
        CHECK_OK(san_register_rdma(pair.b.s, memory.base + MARGIN, LENGTH, MEM_READ,
                                   good.descriptor, &good.descriptor_length));
        bits = 8 * good.descriptor_length;
        forged = good;
        forged.descriptor[bit / 8] ^= (unsigned char)(1u << bit % 8);
        phase("bit %u of the descriptor changed", bit);
        /* It was exposed for reading: no bit may turn that into writing. */
        if (attack(&pair, &forged))
            fail("a write was carried out with bit %u of the descriptor changed", bit);
        bytes_check(memory.base, memory.length, 0x11, "the memory around the region");
        carried++;
        pair_close(&pair);
    }
    CHECK_EQ(carried, bits);

    for (uint32_t seed = 1; seed <= 20; seed++) {
        phase("garbage %u", seed);
        pair_open_through(&pair, &listener);
        memset(&good, 0, sizeof good);
        good.descriptor_length = sizeof good.descriptor;
        CHECK_OK(san_register_rdma(pair.b.s, memory.base + MARGIN, LENGTH, MEM_READWRITE,
                                   good.descriptor, &good.descriptor_length));
        forged = good;
        pattern_fill(forged.descriptor, forged.descriptor_length, seed);
        if (seed == 19)
            memset(forged.descriptor, 0, forged.descriptor_length);
        if (seed == 20)
            memset(forged.descriptor, 0xFF, forged.descriptor_length);
        if (attack(&pair, &forged))
            fail("a write was carried out with a descriptor made of garbage");
        bytes_check(memory.base, memory.length, 0x11, "the memory around the region");
        pair_close(&pair);
    }
    endpoint_close(&listener);
    memory_free(&memory);
    provider_stop();
    return 0;
}
