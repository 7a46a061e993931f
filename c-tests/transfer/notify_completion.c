/*
 * hEvent with low bit 0: each started operation makes exactly one upcall, with the switch's handle
 * of its socket, without anybody polling; WSPGetOverlappedResult agrees with it afterwards.
 * req: WSD-10
 */
#include "kinds.h"

enum { ROUNDS = 20 };

int main(void)
{
    unsigned started = 0, upcalls;
    struct stage stage;
    struct op op;
    DWORD bytes, flags;

    case_begin("notify_completion");
    provider_start();
    stage_open(&stage);
    for (int round = 0; round < ROUNDS; round++)
        for (enum kind kind = SEND; kind < KINDS; kind++) {
            if (!kind_present(kind))
                continue;
            phase("round %d of %s", round, kind_names[kind]);
            op_init(&op, NOTIFY);
            CHECK_POSTED(kind_post(&stage, kind, &op));
            kind_answer(&stage, kind);
            CHECK_OK(op_wait(stage.pair.a.s, &op));
            CHECK_EQ(op.bytes, STAGE_LENGTH);
            if (op.posted == WSA_IO_PENDING) {
                started++;
                CHECK_EQ(op_upcalls(&op), 1);
                CHECK(op.upcall_handle == stage.pair.a.handle);
                CHECK_EQ(op.upcall_error, 0);
                CHECK_EQ(op.upcall_bytes, STAGE_LENGTH);
            }
            kind_answered(&stage, kind);
            for (int again = 0; again < 3; again++) {
                bytes = flags = 77;
                CHECK_OK(san_result(stage.pair.a.s, &op, again == 2, &bytes, &flags));
                CHECK_EQ(bytes, STAGE_LENGTH);
                CHECK_EQ(flags, 0);
            }
        }
    phase("no upcall too many");
    sleep_ms(100);
    upcalls = switch_count(UPCALL_COMPLETE, stage.pair.a.handle);
    CHECK(upcalls >= started);
    CHECK(upcalls <= 4 * ROUNDS);
    /* Every receive waits for its message: it is always started. */
    CHECK(started >= ROUNDS);
    CHECK_EQ(switch_count(UPCALL_COMPLETE, stage.pair.b.handle), 0);
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), upcalls);
    stage_close(&stage);
    provider_stop();
    return 0;
}
