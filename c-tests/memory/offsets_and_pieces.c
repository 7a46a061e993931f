/*
 * RDMA at odd offsets, of odd lengths, gathered from and scattered into several pieces of several
 * registrations, moves exactly the bytes named; more pieces than the provider takes are WSAEINVAL.
 * req: WSD-14
 */
#include <stdlib.h>
#include <string.h>

#include "pair.h"

enum { WINDOW = 200000, MOST = 8, GUARANTEED = 4, ROUNDS = 200 };

static struct pair pair;
static struct area areas[2];
static struct window window;
static unsigned char *expected; /* what the window must hold */
static DWORD limit = MOST;

/* One transfer of `count` pieces of random place and length at a random offset. */
static void run(uint32_t *random, bool write, DWORD count, uint32_t seed)
{
    WSABUFEX pieces[MOST];
    DWORD total = 0, offset;
    struct op op;
    int code;

    /* The pieces of one transfer do not overlap: each has its own stretch of an area. */
    for (DWORD i = 0; i < count; i++) {
        struct area *area = &areas[i % 2];
        DWORD stretch = area->length / MOST;
        DWORD at = next_random(random) % (stretch / 2);
        DWORD length = 1 + next_random(random) % (stretch / 2);

        if (next_random(random) % 4 == 0)
            length = 1 + length % 16;
        pieces[i].len = length;
        pieces[i].buf = (char *)area->base + i * stretch + at;
        pieces[i].handle = area->handle;
        if (write)
            pattern_fill_from(pieces[i].buf, length, seed, total);
        else
            memset(pieces[i].buf, 0, length);
        total += length;
    }
    offset = next_random(random) % (WINDOW - total + 1);
    phase("%s of %u bytes in %u pieces at %u, number %u", write ? "a write" : "a read", total,
          count, offset, seed);
    op_init(&op, seed % 2 ? POLL : NOTIFY);
    if (write)
        code = san_rdma_write(pair.a.s, pieces, count, window.descriptor,
                              window.descriptor_length, offset, &op);
    else
        code = san_rdma_read(pair.a.s, pieces, count, window.descriptor, window.descriptor_length,
                             offset, &op);
    if (code == WSAEINVAL && count > GUARANTEED) {
        if (limit >= count)
            limit = count - 1;
        return;
    }
    CHECK(count <= limit);
    CHECK_POSTED(code);
    CHECK_OK(op_wait(pair.a.s, &op));
    CHECK_EQ(op.bytes, total);
    if (write) {
        pattern_fill(expected + offset, total, seed);
        pair_exchange(&pair);
    } else {
        DWORD done = 0;

        for (DWORD i = 0; i < count; i++) {
            if (memcmp(pieces[i].buf, expected + offset + done, pieces[i].len) != 0)
                fail("piece %u of %u is not what lies at %u", i, count, offset + done);
            done += pieces[i].len;
        }
    }
    if (memcmp(window.base, expected, WINDOW) != 0)
        fail("the exposed memory is not what it should be");
}

int main(void)
{
    uint32_t random = 2463534242u;

    case_begin("offsets_and_pieces");
    provider_start();
    if (san.max_rdma < WINDOW)
        skip("SO_MAX_RDMA_SIZE is only %u", san.max_rdma);
    pair_open(&pair, AF_INET);
    window = window_open(pair.b.s, WINDOW, MEM_READWRITE);
    areas[0] = area_open(pair.a.s, WINDOW / 2 + 13, MEM_READWRITE);
    areas[1] = area_open(pair.a.s, WINDOW / 2 + 29, MEM_READWRITE);
    expected = malloc(WINDOW);
    CHECK(expected != NULL);
    pattern_fill(window.base, WINDOW, 999);
    memcpy(expected, window.base, WINDOW);
    for (uint32_t i = 0; i < ROUNDS; i++)
        run(&random, san.rdma_read == NULL || i % 2 == 0, 1 + next_random(&random) % MOST, i);
    CHECK(limit >= GUARANTEED);
    for (DWORD i = 0; i < 2; i++)
        area_close(&areas[i]);
    window_close(&window);
    pair_close(&pair);
    free(expected);
    provider_stop();
    return 0;
}
