/*
 * What each right permits, and what it does not, on both sides: memory registered for reading is no
 * target, memory exposed for reading cannot be written and for writing cannot be read.
 * req: WSD-12 WSD-13
 */
#include "violate.h"

enum { LENGTH = 400 };

static void permitted(DWORD rights)
{
    struct pair pair;
    struct window window;
    struct area area;
    struct op op;

    pair_open(&pair, AF_INET);
    area = area_open(pair.a.s, LENGTH, MEM_READWRITE);
    window = window_open(pair.b.s, LENGTH, rights);
    if (rights & MEM_WRITE) {
        phase("writing memory exposed with rights %u", rights);
        pattern_fill(area.base, LENGTH, rights);
        op_init(&op, POLL);
        CHECK_POSTED(area_write(&area, 0, LENGTH, &window, 0, &op));
        CHECK_OK(op_wait(pair.a.s, &op));
        CHECK_EQ(op.bytes, LENGTH);
        pair_exchange(&pair);
        pattern_check(window.base, LENGTH, rights, "the written memory");
    }
    if (rights & MEM_READ && san.rdma_read != NULL) {
        phase("reading memory exposed with rights %u", rights);
        pattern_fill(window.base, LENGTH, 10 + rights);
        op_init(&op, POLL);
        CHECK_POSTED(area_read(&area, 0, LENGTH, &window, 0, &op));
        CHECK_OK(op_wait(pair.a.s, &op));
        CHECK_EQ(op.bytes, LENGTH);
        pattern_check(area.base, LENGTH, 10 + rights, "the memory read");
    }
    area_close(&area);
    window_close(&window);
    pair_close(&pair);
}

static void forbidden(bool write, enum how how)
{
    struct pair pair;
    struct window window;

    pair_open(&pair, AF_INET);
    window = window_open(pair.b.s, LENGTH, write ? MEM_READ : MEM_WRITE);
    memset(window.base, 0x11, LENGTH);
    if (write)
        violate_write(&pair, &window, 0, LENGTH, how, "a write of memory exposed for reading");
    else
        violate_read(&pair, &window, 0, LENGTH, how, "a read of memory exposed for writing");
    bytes_check(window.base, LENGTH, 0x11, "memory that was not to be reached");
    pair_close(&pair);
    window_forget(&window);
}

static void local(void)
{
    struct pair pair;
    struct window window;
    struct area readable;
    struct op op;

    pair_open(&pair, AF_INET);
    readable = area_open(pair.a.s, LENGTH, MEM_READ);
    window = window_open(pair.b.s, LENGTH, MEM_READWRITE);
    memset(readable.base, 0x22, LENGTH);
    phase("a receive into memory registered for reading");
    op_init(&op, NOTIFY);
    CHECK_WSA(san_recv_bytes(pair.a.s, readable.base, LENGTH, &op), WSAEFAULT);
    if (san.rdma_read != NULL) {
        phase("a read into memory registered for reading");
        op_init(&op, NOTIFY);
        CHECK_WSA_IN(area_read(&readable, 0, LENGTH, &window, 0, &op), WSAEFAULT, WSAEINVAL,
                     WSAEACCES);
        bytes_check(readable.base, LENGTH, 0x22, "memory registered for reading");
    }
    CHECK_EQ(op_upcalls(&op), 0);
    pair_exchange(&pair);
    area_close(&readable);
    window_close(&window);
    pair_close(&pair);
}

int main(void)
{
    case_begin("access_flags");
    provider_start();
    for (DWORD rights = MEM_READ; rights <= MEM_READWRITE; rights++)
        permitted(rights);
    local();
    forbidden(true, POLL);
    forbidden(true, NOTIFY);
    if (san.rdma_read != NULL) {
        forbidden(false, POLL);
        forbidden(false, NOTIFY);
    }
    provider_stop();
    return 0;
}
