/*
 * The arrays of pieces and the remote descriptor need to last for the call only: overwritten right
 * after it, the transfer is the same.
 * req: WSD-10
 */
#include <string.h>

#include "kinds.h"

enum { ROUNDS = 30 };

int main(void)
{
    struct stage stage;
    struct op op, answer;

    case_begin("arrays_are_copied");
    provider_start();
    stage_open(&stage);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        unsigned char descriptor[DESCRIPTOR_ROOM];
        WSABUFEX wide = {STAGE_LENGTH, (char *)stage.near.base, stage.near.handle};
        WSABUF from = {STAGE_LENGTH, (char *)stage.near.base};
        WSABUF to = {STAGE_LENGTH, (char *)stage.far.base};

        phase("a message, round %u", round);
        memset(stage.far.base, 0, STAGE_LENGTH);
        pattern_fill(stage.near.base, STAGE_LENGTH, round);
        op_init(&answer, POLL);
        CHECK_POSTED(san_recv(stage.pair.b.s, &to, 1, &answer));
        memset(&to, 0xFF, sizeof to);
        op_init(&op, NOTIFY);
        CHECK_POSTED(san_send(stage.pair.a.s, &from, 1, &op));
        memset(&from, 0xFF, sizeof from);
        CHECK_OK(op_wait(stage.pair.a.s, &op));
        CHECK_OK(op_wait(stage.pair.b.s, &answer));
        CHECK_EQ(answer.bytes, STAGE_LENGTH);
        pattern_check(stage.far.base, STAGE_LENGTH, round, "the message");

        phase("a write, round %u", round);
        memcpy(descriptor, stage.window.descriptor, sizeof descriptor);
        op_init(&op, NOTIFY);
        CHECK_POSTED(san_rdma_write(stage.pair.a.s, &wide, 1, descriptor,
                                    stage.window.descriptor_length, 0, &op));
        memset(descriptor, 0xFF, sizeof descriptor);
        memset(&wide, 0xFF, sizeof wide);
        CHECK_OK(op_wait(stage.pair.a.s, &op));
        pair_exchange(&stage.pair);
        pattern_check(stage.window.base, STAGE_LENGTH, round, "the written memory");

        if (san.rdma_read == NULL)
            continue;
        phase("a read, round %u", round);
        memcpy(descriptor, stage.window.descriptor, sizeof descriptor);
        wide.len = STAGE_LENGTH;
        wide.buf = (char *)stage.near.base;
        wide.handle = stage.near.handle;
        pattern_fill(stage.window.base, STAGE_LENGTH, round + 1000);
        op_init(&op, NOTIFY);
        CHECK_POSTED(san_rdma_read(stage.pair.a.s, &wide, 1, descriptor,
                                   stage.window.descriptor_length, 0, &op));
        memset(descriptor, 0xFF, sizeof descriptor);
        memset(&wide, 0xFF, sizeof wide);
        CHECK_OK(op_wait(stage.pair.a.s, &op));
        pattern_check(stage.near.base, STAGE_LENGTH, round + 1000, "the memory read");
    }
    stage_close(&stage);
    provider_stop();
    return 0;
}
