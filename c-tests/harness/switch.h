/*
 * The switch's side of the interface: the sixteen upcalls, recorded.
 *
 * Owns: the switch handles it gave out, the events, the log of what the provider called. Knows
 * nothing of the provider. Holds no lock while a hook of a case runs.
 *
 * Whatever breaks the interface for certain ends the case at once, whatever the case is about:
 * an upcall with a handle that was never given out or that was closed, a completion of an
 * operation that asked for none (low bit of hEvent), a second completion of one operation, a
 * handle closed while one of its upcalls still runs.
 */
#ifndef WSD_HARNESS_SWITCH_H
#define WSD_HARNESS_SWITCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wsdirect.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NO_HANDLE ((SOCKET)0)

/* Internal of a WSAOVERLAPPED whose operation is under way (WSS_OPERATION_IN_PROGRESS). */
#define IN_PROGRESS 0x103u

enum upcall_kind {
    UPCALL_ANY,
    UPCALL_CREATE_HANDLE,
    UPCALL_CLOSE_HANDLE,
    UPCALL_COMPLETE,
    UPCALL_SET_EVENT,
    UPCALL_RESET_EVENT,
    UPCALL_OTHER
};

struct upcall {
    enum upcall_kind kind;
    SOCKET handle;      /* CREATE_HANDLE: the one given out */
    DWORD_PTR context;  /* CREATE_HANDLE */
    WSAEVENT event;     /* SET_EVENT, RESET_EVENT */
    LPWSAOVERLAPPED ov; /* COMPLETE */
    DWORD error;        /* COMPLETE */
    DWORD bytes;        /* COMPLETE */
    uintptr_t thread;   /* pthread_self of the calling thread */
};

/* One operation. `ov` is what the provider gets; it stands first so that an upcall finds the rest. */
struct op {
    WSAOVERLAPPED ov;
    uint32_t magic;
    bool notify;           /* low bit of hEvent is 0 */
    unsigned upcalls;      /* read with op_upcalls */
    DWORD upcall_error;
    DWORD upcall_bytes;
    SOCKET upcall_handle;
    int posted;            /* what the posting call gave: 0, 997 or an error */
    DWORD inline_bytes;    /* what the posting call wrote as its byte count */
    DWORD bytes;           /* set by op_wait */
    DWORD flags;           /* set by op_wait */
    /* Runs inside the completion upcall, on the provider's thread, without any lock held. */
    void (*then)(struct op *op, void *context);
    void *context;
};

enum how { POLL, NOTIFY };

/* Prepares `op` for a new post. */
void op_init(struct op *op, enum how how);
unsigned op_upcalls(const struct op *op);
/* Whether Internal says that the operation has ended. */
bool op_ended(const struct op *op);

/* The table to hand to WSPStartupEx. */
void switch_table(WSPUPCALLTABLEEX *table);

/* The handle that the calling thread's last successful CreateSocketHandle gave, or NO_HANDLE. */
SOCKET switch_take_created(void);
/* The next `count` CreateSocketHandle upcalls fail with `code`. */
void switch_refuse_handles(unsigned count, int code);
bool switch_handle_is_open(SOCKET handle);
unsigned switch_open_handles(void);

/* `handle` NO_HANDLE counts all. */
unsigned switch_count(enum upcall_kind kind, SOCKET handle);
/* Waits until switch_count(kind, handle) is at least `count`; false when that takes too long. */
bool switch_await(enum upcall_kind kind, SOCKET handle, unsigned count);
/* The last `room` records, oldest first; returns how many. */
size_t switch_log(struct upcall *records, size_t room);
/* Records from now on only counts, for cases with millions of upcalls. */
void switch_log_off(void);

/* `hook` runs inside every upcall of this kind, after it was recorded. NULL takes it away. */
void switch_hook(enum upcall_kind kind, void (*hook)(const struct upcall *record, void *context),
                 void *context);

/* Events: an eventfd, its number + 1 as the handle. */
WSAEVENT event_open(void);
void event_close(WSAEVENT event);
bool event_is_set(WSAEVENT event);
/* False when it was not set within `milliseconds`. */
bool event_wait(WSAEVENT event, int milliseconds);

#ifdef __cplusplus
}
#endif
#endif
