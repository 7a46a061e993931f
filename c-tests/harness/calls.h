/*
 * Every function of the interface that takes a socket, each as one call with arguments that are
 * good but for the socket. For the cases that are a table over all functions.
 */
#ifndef WSD_HARNESS_CALLS_H
#define WSD_HARNESS_CALLS_H

#include "pair.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Good arguments; they belong to another, healthy socket. */
struct material {
    union address address;
    WSAEVENT event;
    struct memory memory;
    HANDLE handle;
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD descriptor_length;
    struct op op;
};

struct call {
    const char *name;
    /* The error code, 0 for success. */
    int (*run)(SOCKET s, struct material *material);
    /* May be answered with WSAEOPNOTSUPP before the socket is looked at. */
    bool optional;
};

extern const struct call calls[];
extern const size_t call_count;

/* Registers the memory on a connected socket. */
void material_open(struct material *material, SOCKET s);
void material_close(struct material *material, SOCKET s);

/* Every call with `s`, which is no socket: WSAENOTSOCK from each, and no upcall. */
void check_no_socket(SOCKET s, struct material *material);

#ifdef __cplusplus
}
#endif
#endif
