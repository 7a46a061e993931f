/* Checks, skips and the watchdog; see check.h. */
#include "check.h"

#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *case_name = "?";
static char current_phase[256] = "starting";
static pthread_mutex_t phase_lock = PTHREAD_MUTEX_INITIALIZER;

static void say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static void report(const char *what)
{
    void *frames[32];

    say(case_name);
    say(": ");
    say(what);
    say(" while: ");
    say(current_phase);
    say("\n");
    backtrace_symbols_fd(frames, backtrace(frames, 32), STDERR_FILENO);
}

static void on_alarm(int number)
{
    (void)number;
    report("hung");
    _exit(1);
}

static void on_crash(int number)
{
    report(number == SIGABRT ? "aborted" : "crashed");
    signal(number, SIG_DFL);
    raise(number);
}

#if defined(__SANITIZE_ADDRESS__)
/* The provider under test keeps its statics; a leak check of the C side alone says little. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0:allocator_may_return_null=1";
}
#endif

void case_begin(const char *name)
{
    void *frame;

    case_name = name;
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stderr, NULL, _IOLBF, 0);
    backtrace(&frame, 1); /* loads what a signal handler could not load */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_alarm);
#if !defined(__SANITIZE_ADDRESS__)
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    signal(SIGFPE, on_crash);
    signal(SIGILL, on_crash);
#endif
    signal(SIGABRT, on_crash);
    case_limit(50);
}

void case_limit(unsigned seconds)
{
    const char *limit = getenv("WSD_TEST_WATCHDOG");

    alarm(limit != NULL ? (unsigned)strtoul(limit, NULL, 10) : seconds);
}

static unsigned number_or(const char *variable, unsigned usual)
{
    const char *text = getenv(variable);
    unsigned number = text != NULL ? (unsigned)strtoul(text, NULL, 10) : usual;

    if (number == 0)
        fail("%s is no number above 0: %s", variable, text);
    return number;
}

unsigned divided(unsigned whole)
{
    unsigned part = whole / number_or("WSD_TEST_DIVISOR", 1);

    return part > 0 ? part : 1;
}

unsigned rounds_or(unsigned usual)
{
    return number_or("WSD_TEST_ROUNDS", usual);
}

void phase(const char *format, ...)
{
    va_list arguments;

    pthread_mutex_lock(&phase_lock);
    va_start(arguments, format);
    vsnprintf(current_phase, sizeof current_phase, format, arguments);
    va_end(arguments);
    pthread_mutex_unlock(&phase_lock);
}

void skip(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    printf("%s: skipped: ", case_name);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    fflush(stdout);
    _exit(EXIT_SKIPPED);
}

void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "%s: FAILED: ", case_name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n    while: %s\n", current_phase);
    va_end(arguments);
    fflush(stdout);
    fflush(stderr);
    /* Not exit(): other threads may be inside the provider. */
    _exit(1);
}

static const struct {
    int code;
    const char *name;
} names[] = {
    {0, "ok"},
    {6, "WSA_INVALID_HANDLE"},
    {8, "WSA_NOT_ENOUGH_MEMORY"},
    {87, "WSA_INVALID_PARAMETER"},
    {995, "WSA_OPERATION_ABORTED"},
    {996, "WSA_IO_INCOMPLETE"},
    {997, "WSA_IO_PENDING"},
    {10004, "WSAEINTR"},
    {10009, "WSAEBADF"},
    {10013, "WSAEACCES"},
    {10014, "WSAEFAULT"},
    {10022, "WSAEINVAL"},
    {10024, "WSAEMFILE"},
    {10035, "WSAEWOULDBLOCK"},
    {10036, "WSAEINPROGRESS"},
    {10037, "WSAEALREADY"},
    {10038, "WSAENOTSOCK"},
    {10039, "WSAEDESTADDRREQ"},
    {10040, "WSAEMSGSIZE"},
    {10041, "WSAEPROTOTYPE"},
    {10042, "WSAENOPROTOOPT"},
    {10043, "WSAEPROTONOSUPPORT"},
    {10044, "WSAESOCKTNOSUPPORT"},
    {10045, "WSAEOPNOTSUPP"},
    {10046, "WSAEPFNOSUPPORT"},
    {10047, "WSAEAFNOSUPPORT"},
    {10048, "WSAEADDRINUSE"},
    {10049, "WSAEADDRNOTAVAIL"},
    {10050, "WSAENETDOWN"},
    {10051, "WSAENETUNREACH"},
    {10052, "WSAENETRESET"},
    {10053, "WSAECONNABORTED"},
    {10054, "WSAECONNRESET"},
    {10055, "WSAENOBUFS"},
    {10056, "WSAEISCONN"},
    {10057, "WSAENOTCONN"},
    {10058, "WSAESHUTDOWN"},
    {10060, "WSAETIMEDOUT"},
    {10061, "WSAECONNREFUSED"},
    {10064, "WSAEHOSTDOWN"},
    {10065, "WSAEHOSTUNREACH"},
    {10067, "WSAEPROCLIM"},
    {10091, "WSASYSNOTREADY"},
    {10092, "WSAVERNOTSUPPORTED"},
    {10093, "WSANOTINITIALISED"},
    {10101, "WSAEDISCON"},
    {10103, "WSAECANCELLED"},
    {10104, "WSAEINVALIDPROCTABLE"},
    {10105, "WSAEINVALIDPROVIDER"},
    {10106, "WSAEPROVIDERFAILEDINIT"},
    {10107, "WSASYSCALLFAILURE"},
    {11002, "WSATRY_AGAIN"},
    {11003, "WSANO_RECOVERY"},
};

const char *code_name(int code)
{
    static _Thread_local char text[8][48];
    static _Thread_local unsigned turn;
    char *room = text[turn++ % 8];
    const char *name = "?";

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].code == code)
            name = names[i].name;
    snprintf(room, sizeof text[0], "%d (%s)", code, name);
    return room;
}

void check_true(const char *file, int line, const char *text, bool holds)
{
    if (!holds)
        fail("%s:%d: %s", file, line, text);
}

void check_equal(const char *file, int line, const char *text, long long actual, const char *wanted,
                 long long expected)
{
    if (actual != expected)
        fail("%s:%d: %s is %lld (0x%llx), expected %s = %lld", file, line, text, actual,
             (unsigned long long)actual, wanted, expected);
}

void check_code(const char *file, int line, const char *text, int actual, int expected)
{
    if (actual != expected)
        fail("%s:%d: %s gave %s, expected %s", file, line, text, code_name(actual),
             code_name(expected));
}

void check_code_in(const char *file, int line, const char *text, int actual, ...)
{
    char expected[256] = "";
    size_t used = 0;
    va_list codes;

    va_start(codes, actual);
    for (;;) {
        int code = va_arg(codes, int);
        if (code == -1)
            break;
        if (code == actual) {
            va_end(codes);
            return;
        }
        if (used < sizeof expected)
            used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                     used ? ", " : "", code_name(code));
    }
    va_end(codes);
    fail("%s:%d: %s gave %s, expected one of %s", file, line, text, code_name(actual), expected);
}

double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void sleep_ms(unsigned milliseconds)
{
    struct timespec length = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000L};

    while (nanosleep(&length, &length) != 0)
        ;
}
