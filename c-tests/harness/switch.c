/* The recorded upcalls; see switch.h. */
#include "switch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define OP_MAGIC 0x6f704f50u
/* Handles start here and step by 4: no provider counts its descriptors like this. */
#define FIRST_HANDLE ((SOCKET)0x5A000001u)
#define HANDLE_STEP 4u
#define KINDS (UPCALL_OTHER + 1)
#define LOG_ROOM 65536u
#define EVENT_ROOM 65536u

struct handle {
    DWORD_PTR context;
    bool open;
    unsigned running; /* completion upcalls that have not returned */
    unsigned counts[KINDS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* All guarded by `lock`. */
static struct handle *handles;
static size_t handle_count, handle_room;
static unsigned refuse_count;
static int refuse_code;
static unsigned totals[KINDS];
static struct upcall records[LOG_ROOM];
static size_t record_count;
static bool recording = true;
static unsigned char event_known[EVENT_ROOM];
static void (*hooks[KINDS])(const struct upcall *, void *);
static void *hook_contexts[KINDS];

static _Thread_local SOCKET last_created;

static void prepare(void)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static struct handle *find(SOCKET handle)
{
    size_t index;

    if (handle < FIRST_HANDLE || (handle - FIRST_HANDLE) % HANDLE_STEP != 0)
        return NULL;
    index = (size_t)(handle - FIRST_HANDLE) / HANDLE_STEP;
    return index < handle_count ? &handles[index] : NULL;
}

/* Records and counts; `lock` is held. */
static void note(const struct upcall *record)
{
    struct handle *known = find(record->handle);

    totals[record->kind]++;
    if (known != NULL)
        known->counts[record->kind]++;
    if (recording)
        records[record_count++ % LOG_ROOM] = *record;
    pthread_cond_broadcast(&changed);
}

static void run_hook(const struct upcall *record)
{
    void (*hook)(const struct upcall *, void *);
    void *context;

    pthread_mutex_lock(&lock);
    hook = hooks[record->kind];
    context = hook_contexts[record->kind];
    pthread_mutex_unlock(&lock);
    if (hook != NULL)
        hook(record, context);
}

static void set_code(LPINT lpErrno, int code)
{
    if (lpErrno == NULL)
        fail("an upcall got a null lpErrno");
    *lpErrno = code;
}

static struct upcall record_of(enum upcall_kind kind)
{
    struct upcall record;

    memset(&record, 0, sizeof record);
    record.kind = kind;
    record.thread = (uintptr_t)pthread_self();
    return record;
}

/* ---- socket handles ---- */

static SOCKET create_socket_handle(DWORD dwCatalogEntryId, DWORD_PTR dwContext, LPINT lpErrno)
{
    struct upcall record = record_of(UPCALL_CREATE_HANDLE);

    (void)dwCatalogEntryId;
    pthread_mutex_lock(&lock);
    if (refuse_count > 0) {
        int code = refuse_code;
        refuse_count--;
        pthread_mutex_unlock(&lock);
        set_code(lpErrno, code);
        return INVALID_SOCKET;
    }
    if (handle_count == handle_room) {
        handle_room = handle_room ? handle_room * 2 : 64;
        handles = realloc(handles, handle_room * sizeof *handles);
        if (handles == NULL)
            abort();
    }
    memset(&handles[handle_count], 0, sizeof *handles);
    handles[handle_count].context = dwContext;
    handles[handle_count].open = true;
    record.handle = FIRST_HANDLE + (SOCKET)handle_count * HANDLE_STEP;
    record.context = dwContext;
    handle_count++;
    last_created = record.handle;
    note(&record);
    pthread_mutex_unlock(&lock);
    run_hook(&record);
    return record.handle;
}

static int close_socket_handle(SOCKET s, LPINT lpErrno)
{
    struct upcall record = record_of(UPCALL_CLOSE_HANDLE);
    struct handle *known;

    (void)lpErrno;
    pthread_mutex_lock(&lock);
    known = find(s);
    if (known == NULL)
        fail("WPUCloseSocketHandle with %#llx, which is no switch handle", (unsigned long long)s);
    if (!known->open)
        fail("WPUCloseSocketHandle twice for one handle");
    if (known->running != 0)
        fail("WPUCloseSocketHandle while %u upcalls of the socket still run", known->running);
    known->open = false;
    record.handle = s;
    record.context = known->context;
    note(&record);
    pthread_mutex_unlock(&lock);
    run_hook(&record);
    return 0;
}

static int query_socket_handle_context(SOCKET s, DWORD_PTR *lpContext, LPINT lpErrno)
{
    struct handle *known;

    pthread_mutex_lock(&lock);
    known = find(s);
    if (known == NULL || !known->open || lpContext == NULL) {
        pthread_mutex_unlock(&lock);
        set_code(lpErrno, WSAENOTSOCK);
        return SOCKET_ERROR;
    }
    *lpContext = known->context;
    pthread_mutex_unlock(&lock);
    return 0;
}

/* ---- completions ---- */

static int complete_overlapped_request(SOCKET s, LPWSAOVERLAPPED lpOverlapped, DWORD dwError,
                                       DWORD cbTransferred, LPINT lpErrno)
{
    struct upcall record = record_of(UPCALL_COMPLETE);
    struct op *op = (struct op *)lpOverlapped;
    struct handle *known;

    (void)lpErrno;
    if (op == NULL || op->magic != OP_MAGIC)
        fail("a completion names an overlapped structure that was never given");
    record.handle = s;
    record.ov = lpOverlapped;
    record.error = dwError;
    record.bytes = cbTransferred;

    pthread_mutex_lock(&lock);
    known = find(s);
    if (known == NULL)
        fail("a completion names %#llx, which is no switch handle", (unsigned long long)s);
    if (!known->open)
        fail("a completion after WPUCloseSocketHandle");
    if (!op->notify)
        fail("a completion upcall for an operation that asked for none (low bit of hEvent is 1)");
    if (op->upcalls != 0)
        fail("a second completion upcall for one operation");
    known->running++;
    op->upcall_error = dwError;
    op->upcall_bytes = cbTransferred;
    op->upcall_handle = s;
    /* What the switch does: the byte count, then the end of the operation. */
    op->ov.InternalHigh = cbTransferred;
    __atomic_store_n(&op->ov.Internal, 0, __ATOMIC_RELEASE);
    if (op->then == NULL) {
        /* The waiter may reuse the operation as soon as the count is up. */
        __atomic_store_n(&op->upcalls, 1, __ATOMIC_RELEASE);
        note(&record);
        pthread_mutex_unlock(&lock);
    } else {
        void (*then)(struct op *, void *) = op->then;
        void *context = op->context;

        note(&record);
        __atomic_store_n(&op->upcalls, 1, __ATOMIC_RELEASE);
        pthread_mutex_unlock(&lock);
        then(op, context);
    }
    run_hook(&record);

    pthread_mutex_lock(&lock);
    known = find(s);
    known->running--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return 0;
}

/* ---- events ---- */

static int event_number(WSAEVENT event)
{
    return (int)((intptr_t)event - 1);
}

static bool event_open_now(WSAEVENT event)
{
    int number = event_number(event);

    return number >= 0 && (unsigned)number < EVENT_ROOM && event_known[number];
}

WSAEVENT event_open(void)
{
    int number = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    if (number < 0 || (unsigned)number >= EVENT_ROOM)
        fail("eventfd: %s", strerror(errno));
    pthread_mutex_lock(&lock);
    event_known[number] = 1;
    pthread_mutex_unlock(&lock);
    return (WSAEVENT)((intptr_t)number + 1);
}

void event_close(WSAEVENT event)
{
    pthread_mutex_lock(&lock);
    if (!event_open_now(event))
        fail("event_close of an event that is not open");
    event_known[event_number(event)] = 0;
    close(event_number(event));
    pthread_mutex_unlock(&lock);
}

bool event_wait(WSAEVENT event, int milliseconds)
{
    struct pollfd waiting;
    double end = now_seconds() + milliseconds / 1000.0;

    waiting.fd = event_number(event);
    waiting.events = POLLIN;
    waiting.revents = 0;
    for (;;) {
        int left = (int)((end - now_seconds()) * 1000.0);
        int result = poll(&waiting, 1, left > 0 ? left : 0);

        if (result > 0)
            return (waiting.revents & POLLIN) != 0;
        if (result == 0 && left <= 0)
            return false;
        if (result < 0 && errno != EINTR)
            fail("poll: %s", strerror(errno));
    }
}

bool event_is_set(WSAEVENT event)
{
    return event_wait(event, 0);
}

static BOOL change_event(enum upcall_kind kind, WSAEVENT event, LPINT lpErrno)
{
    struct upcall record = record_of(kind);
    uint64_t one = 1, count;
    bool known;

    record.event = event;
    pthread_mutex_lock(&lock);
    known = event_open_now(event);
    if (known && kind == UPCALL_SET_EVENT)
        (void)!write(event_number(event), &one, sizeof one);
    else if (known)
        (void)!read(event_number(event), &count, sizeof count);
    note(&record);
    pthread_mutex_unlock(&lock);
    run_hook(&record);
    if (!known) {
        set_code(lpErrno, WSA_INVALID_HANDLE);
        return FALSE;
    }
    return TRUE;
}

static BOOL set_event(WSAEVENT hEvent, LPINT lpErrno)
{
    return change_event(UPCALL_SET_EVENT, hEvent, lpErrno);
}

static BOOL reset_event(WSAEVENT hEvent, LPINT lpErrno)
{
    return change_event(UPCALL_RESET_EVENT, hEvent, lpErrno);
}

static WSAEVENT create_event(LPINT lpErrno)
{
    (void)lpErrno;
    return event_open();
}

static BOOL close_event(WSAEVENT hEvent, LPINT lpErrno)
{
    bool known;

    pthread_mutex_lock(&lock);
    known = event_open_now(hEvent);
    pthread_mutex_unlock(&lock);
    if (!known) {
        set_code(lpErrno, WSA_INVALID_HANDLE);
        return FALSE;
    }
    event_close(hEvent);
    return TRUE;
}

/* ---- upcalls that a SAN provider has no use for ---- */

static int refuse_int(LPINT lpErrno)
{
    struct upcall record = record_of(UPCALL_OTHER);

    pthread_mutex_lock(&lock);
    note(&record);
    pthread_mutex_unlock(&lock);
    set_code(lpErrno, WSAEOPNOTSUPP);
    return SOCKET_ERROR;
}

static int fd_is_set(SOCKET s, fd_set *fdset)
{
    (void)s;
    (void)fdset;
    return 0;
}

static int get_provider_path(LPGUID lpProviderId, LPWSTR lpszPath, LPINT lpLength, LPINT lpErrno)
{
    (void)lpProviderId;
    (void)lpszPath;
    (void)lpLength;
    return refuse_int(lpErrno);
}

static SOCKET modify_ifs_handle(DWORD dwCatalogEntryId, SOCKET ProposedHandle, LPINT lpErrno)
{
    (void)dwCatalogEntryId;
    (void)ProposedHandle;
    refuse_int(lpErrno);
    return INVALID_SOCKET;
}

static BOOL post_message(HWND hWnd, UINT Msg, WPARAM wParam, LPARAM lParam)
{
    (void)hWnd;
    (void)Msg;
    (void)wParam;
    (void)lParam;
    return FALSE;
}

static int query_blocking_callback(DWORD dwCatalogEntryId, LPBLOCKINGCALLBACK *lplpfnCallback,
                                   PDWORD_PTR lpdwContext, LPINT lpErrno)
{
    (void)dwCatalogEntryId;
    (void)lplpfnCallback;
    (void)lpdwContext;
    return refuse_int(lpErrno);
}

static int queue_apc(LPWSATHREADID lpThreadId, LPWSAUSERAPC lpfnUserApc, DWORD_PTR dwContext,
                     LPINT lpErrno)
{
    (void)lpThreadId;
    (void)lpfnUserApc;
    (void)dwContext;
    return refuse_int(lpErrno);
}

static int open_current_thread(LPWSATHREADID lpThreadId, LPINT lpErrno)
{
    (void)lpThreadId;
    return refuse_int(lpErrno);
}

static int close_thread(LPWSATHREADID lpThreadId, LPINT lpErrno)
{
    (void)lpThreadId;
    return refuse_int(lpErrno);
}

void switch_table(WSPUPCALLTABLEEX *table)
{
    pthread_once(&once, prepare);
    memset(table, 0, sizeof *table);
    table->lpWPUCloseEvent = close_event;
    table->lpWPUCloseSocketHandle = close_socket_handle;
    table->lpWPUCreateEvent = create_event;
    table->lpWPUCreateSocketHandle = create_socket_handle;
    table->lpWPUFDIsSet = fd_is_set;
    table->lpWPUGetProviderPath = get_provider_path;
    table->lpWPUModifyIFSHandle = modify_ifs_handle;
    table->lpWPUPostMessage = post_message;
    table->lpWPUQueryBlockingCallback = query_blocking_callback;
    table->lpWPUQuerySocketHandleContext = query_socket_handle_context;
    table->lpWPUQueueApc = queue_apc;
    table->lpWPUResetEvent = reset_event;
    table->lpWPUSetEvent = set_event;
    table->lpWPUOpenCurrentThread = open_current_thread;
    table->lpWPUCloseThread = close_thread;
    table->lpWPUCompleteOverlappedRequest = complete_overlapped_request;
}

/* ---- log ---- */

SOCKET switch_take_created(void)
{
    SOCKET handle = last_created;

    last_created = NO_HANDLE;
    return handle;
}

void switch_refuse_handles(unsigned count, int code)
{
    pthread_mutex_lock(&lock);
    refuse_count = count;
    refuse_code = code;
    pthread_mutex_unlock(&lock);
}

bool switch_handle_is_open(SOCKET handle)
{
    struct handle *known;
    bool open;

    pthread_mutex_lock(&lock);
    known = find(handle);
    open = known != NULL && known->open;
    pthread_mutex_unlock(&lock);
    return open;
}

unsigned switch_open_handles(void)
{
    unsigned open = 0;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < handle_count; i++)
        open += handles[i].open;
    pthread_mutex_unlock(&lock);
    return open;
}

/* `lock` is held. */
static unsigned count_of(enum upcall_kind kind, SOCKET handle)
{
    const unsigned *counts = totals;
    unsigned sum = 0;

    if (handle != NO_HANDLE) {
        struct handle *known = find(handle);

        if (known == NULL)
            return 0;
        counts = known->counts;
    }
    if (kind != UPCALL_ANY)
        return counts[kind];
    for (int i = 0; i < KINDS; i++)
        sum += counts[i];
    return sum;
}

unsigned switch_count(enum upcall_kind kind, SOCKET handle)
{
    unsigned count;

    pthread_mutex_lock(&lock);
    count = count_of(kind, handle);
    pthread_mutex_unlock(&lock);
    return count;
}

bool switch_await(enum upcall_kind kind, SOCKET handle, unsigned count)
{
    struct timespec end;
    bool reached;

    pthread_once(&once, prepare);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += WAIT_SECONDS;
    pthread_mutex_lock(&lock);
    while (!(reached = count_of(kind, handle) >= count))
        if (pthread_cond_timedwait(&changed, &lock, &end) == ETIMEDOUT) {
            reached = count_of(kind, handle) >= count;
            break;
        }
    pthread_mutex_unlock(&lock);
    return reached;
}

size_t switch_log(struct upcall *out, size_t room)
{
    size_t kept, taken;

    pthread_mutex_lock(&lock);
    kept = record_count < LOG_ROOM ? record_count : LOG_ROOM;
    taken = kept < room ? kept : room;
    for (size_t i = 0; i < taken; i++)
        out[i] = records[(record_count - taken + i) % LOG_ROOM];
    pthread_mutex_unlock(&lock);
    return taken;
}

void switch_log_off(void)
{
    pthread_mutex_lock(&lock);
    recording = false;
    pthread_mutex_unlock(&lock);
}

void switch_hook(enum upcall_kind kind, void (*hook)(const struct upcall *, void *), void *context)
{
    pthread_mutex_lock(&lock);
    hooks[kind] = hook;
    hook_contexts[kind] = context;
    pthread_mutex_unlock(&lock);
}

/* ---- operations ---- */

void op_init(struct op *op, enum how how)
{
    memset(op, 0, sizeof *op);
    op->magic = OP_MAGIC;
    op->notify = how == NOTIFY;
    op->ov.hEvent = (WSAEVENT)(uintptr_t)(how == POLL ? 1 : 0);
}

unsigned op_upcalls(const struct op *op)
{
    return __atomic_load_n(&op->upcalls, __ATOMIC_ACQUIRE);
}

bool op_ended(const struct op *op)
{
    return __atomic_load_n(&op->ov.Internal, __ATOMIC_ACQUIRE) != IN_PROGRESS;
}
