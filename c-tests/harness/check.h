/*
 * Checks, skips, and the watchdog of every case.
 *
 * Owns: how a case fails (message with file, line and values, exit 1), how it is skipped (exit
 * 77 with a printed reason) and what is printed when it hangs or crashes (the last phase). Knows
 * nothing of the interface but the names of its error numbers.
 */
#ifndef WSD_HARNESS_CHECK_H
#define WSD_HARNESS_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EXIT_SKIPPED 77

/* Longest wait for something that must happen; generous, for a loaded machine. */
#define WAIT_SECONDS 20

/* First call of every main: line-buffered output, watchdog, crash report. */
void case_begin(const char *name);

/* More time for the whole case than the usual 50 s; fits the TIMEOUT of its registration. */
void case_limit(unsigned seconds);

/* An amount, or less of it where everything is slow: divided by WSD_TEST_DIVISOR. */
unsigned divided(unsigned whole);

/* How many rounds: what WSD_TEST_ROUNDS says, or else as many as usual. */
unsigned rounds_or(unsigned usual);

/* What the case is doing now; printed by the watchdog and the crash report. */
void phase(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the case as skipped. */
void skip(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Ends the case as failed, from any thread. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* "10054 (WSAECONNRESET)"; the text lives in a few rotating buffers. */
const char *code_name(int code);

void check_true(const char *file, int line, const char *text, bool holds);
void check_equal(const char *file, int line, const char *text, long long actual, const char *wanted,
                 long long expected);
void check_code(const char *file, int line, const char *text, int actual, int expected);
/* The expected codes end with -1. */
void check_code_in(const char *file, int line, const char *text, int actual, ...);

/* Monotonic seconds. */
double now_seconds(void);
void sleep_ms(unsigned milliseconds);

#define CHECK(expr) check_true(__FILE__, __LINE__, #expr, (expr) ? true : false)
#define CHECK_EQ(actual, expected)                                                                 \
    check_equal(__FILE__, __LINE__, #actual, (long long)(actual), #expected, (long long)(expected))
/* `call` yields the error code of a function of the interface, 0 for success. */
#define CHECK_WSA(call, code) check_code(__FILE__, __LINE__, #call, (call), (int)(code))
#define CHECK_WSA_IN(call, ...) check_code_in(__FILE__, __LINE__, #call, (call), __VA_ARGS__, -1)
#define CHECK_OK(call) CHECK_WSA(call, 0)

#ifdef __cplusplus
}
#endif
#endif
