/*
 * hEvent with low bit 1: the caller polls. There is never an upcall, not even at close;
 * WSPGetOverlappedResult gives the result, as often as it is asked.
 * req: WSD-10
 */
#include "kinds.h"

enum { ROUNDS = 20 };

int main(void)
{
    struct stage stage;
    struct op op, left;
    DWORD bytes, flags;

    case_begin("poll_completion");
    provider_start();
    stage_open(&stage);
    for (int round = 0; round < ROUNDS; round++)
        for (enum kind kind = SEND; kind < KINDS; kind++) {
            if (!kind_present(kind))
                continue;
            phase("round %d of %s", round, kind_names[kind]);
            op_init(&op, POLL);
            CHECK_POSTED(kind_post(&stage, kind, &op));
            kind_answer(&stage, kind);
            CHECK_OK(op_wait(stage.pair.a.s, &op));
            CHECK_EQ(op.bytes, STAGE_LENGTH);
            CHECK(op_ended(&op));
            kind_answered(&stage, kind);
            for (int again = 0; again < 3; again++) {
                bytes = flags = 77;
                CHECK_OK(san_result(stage.pair.a.s, &op, again == 2, &bytes, &flags));
                CHECK_EQ(bytes, STAGE_LENGTH);
                CHECK_EQ(flags, 0);
            }
        }

    phase("a receive that stays until close");
    op_init(&left, POLL);
    CHECK_WSA(kind_post(&stage, RECV, &left), WSA_IO_PENDING);
    CHECK_EQ(left.ov.Internal, IN_PROGRESS);
    CHECK_OK(san_close(stage.pair.a.s));
    CHECK_WSA(op_wait_flushed(&left), WSA_OPERATION_ABORTED);
    CHECK_EQ(left.bytes, 0);
    endpoint_forget(&stage.pair.a);
    endpoint_close(&stage.pair.b);
    area_forget(&stage.near);
    area_forget(&stage.far);
    window_forget(&stage.window);
    provider_stop();
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), 0);
    return 0;
}
