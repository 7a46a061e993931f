/*
 * Accesses that must fail and move no byte. Such an access may be refused by the call, or be
 * started and then fail; it may end the connection, as it does on real adapters.
 */
#ifndef WSD_CASE_VIOLATE_H
#define WSD_CASE_VIOLATE_H

#include <string.h>

#include "pair.h"

/* The code with which an access failed; fails the case when it succeeded. */
static inline int violation_code(SOCKET s, struct op *op, int posted, const char *what)
{
    int code = posted;

    if (posted == 0 || posted == WSA_IO_PENDING)
        code = op_wait(s, op);
    if (code == 0)
        fail("%s succeeded", what);
    check_code_in(__FILE__, __LINE__, what, code, WSAECONNABORTED, WSAECONNRESET, WSAEINVAL,
                  WSAEFAULT, WSAEACCES, -1);
    return code;
}

/* A write of a pattern into the peer's window that must not happen. */
static inline void violate_write(struct pair *pair, const struct window *window, DWORD offset,
                                 DWORD length, enum how how, const char *what)
{
    struct area area = area_open(pair->a.s, length, MEM_READ);
    struct op op;

    phase("%s", what);
    memset(area.base, 0x77, length);
    op_init(&op, how);
    violation_code(pair->a.s, &op, area_write(&area, 0, length, window, offset, &op), what);
    /* Time for a byte to arrive that should not. */
    sleep_ms(20);
    CHECK_OK(san_deregister(pair->a.s, area.handle));
    area_forget(&area);
}

/* A read of the peer's window that must not happen; the local memory stays as it was. */
static inline void violate_read(struct pair *pair, const struct window *window, DWORD offset,
                                DWORD length, enum how how, const char *what)
{
    struct area area = area_open(pair->a.s, length, MEM_WRITE);
    struct op op;

    phase("%s", what);
    memset(area.base, 0x55, length);
    op_init(&op, how);
    violation_code(pair->a.s, &op, area_read(&area, 0, length, window, offset, &op), what);
    sleep_ms(20);
    bytes_check(area.base, length, 0x55, "the target of a read that failed");
    CHECK_OK(san_deregister(pair->a.s, area.handle));
    area_forget(&area);
}


#endif
