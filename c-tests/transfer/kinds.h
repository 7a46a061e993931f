/* One operation of each kind, for cases that are a table over them. */
#ifndef WSD_CASE_KINDS_H
#define WSD_CASE_KINDS_H

#include "pair.h"

enum kind { SEND, RECV, WRITE, READ, KINDS };

static const char *const kind_names[KINDS] = {"WSPSend", "WSPRecv", "WSPRdmaWrite",
                                              "WSPRdmaRead"};

/* What one operation of socket a needs; the window is b's. */
struct stage {
    struct pair pair;
    struct area near, far;
    struct window window;
    struct op other; /* what the peer does so that the operation can end */
};

enum { STAGE_LENGTH = 500 };

static inline bool kind_present(enum kind kind)
{
    return kind != READ || san.rdma_read != NULL;
}

static inline void stage_open(struct stage *stage)
{
    pair_open(&stage->pair, AF_INET);
    stage->near = area_open(stage->pair.a.s, STAGE_LENGTH, MEM_READWRITE);
    stage->far = area_open(stage->pair.b.s, STAGE_LENGTH, MEM_READWRITE);
    stage->window = window_open(stage->pair.b.s, STAGE_LENGTH, MEM_READWRITE);
}

static inline void stage_close(struct stage *stage)
{
    area_close(&stage->near);
    area_close(&stage->far);
    window_close(&stage->window);
    pair_close(&stage->pair);
}

static inline int kind_post(struct stage *stage, enum kind kind, struct op *op)
{
    switch (kind) {
    case SEND:
        return san_send_bytes(stage->pair.a.s, stage->near.base, STAGE_LENGTH, op);
    case RECV:
        return san_recv_bytes(stage->pair.a.s, stage->near.base, STAGE_LENGTH, op);
    case WRITE:
        return area_write(&stage->near, 0, STAGE_LENGTH, &stage->window, 0, op);
    case READ:
        return area_read(&stage->near, 0, STAGE_LENGTH, &stage->window, 0, op);
    default:
        fail("no such kind");
    }
}

/* Lets the peer take part, so that the operation ends with STAGE_LENGTH bytes. */
static inline void kind_answer(struct stage *stage, enum kind kind)
{
    op_init(&stage->other, POLL);
    if (kind == SEND)
        CHECK_POSTED(
            san_recv_bytes(stage->pair.b.s, stage->far.base, STAGE_LENGTH, &stage->other));
    if (kind == RECV)
        CHECK_POSTED(
            san_send_bytes(stage->pair.b.s, stage->far.base, STAGE_LENGTH, &stage->other));
}

static inline void kind_answered(struct stage *stage, enum kind kind)
{
    if (kind == SEND || kind == RECV) {
        CHECK_OK(op_wait(stage->pair.b.s, &stage->other));
        CHECK_EQ(stage->other.bytes, STAGE_LENGTH);
    }
}

#endif
