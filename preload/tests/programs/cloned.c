/* Children by clone(), with memory of their own, as by vfork, and in the parent's memory: a connection
 * goes on in the child and in the parent. */
#include "pair.h"
#include <sched.h>
#include <sys/syscall.h>

extern int __clone(int (*)(void *), void *, int, void *, ...);

enum body { CLOSES, TALKS, EXECS, RETURNS, ENDS, BODIES };
static const char *const BODY[] = {"closes", "talks", "executes", "returns", "ends"};

static struct pair p;
static int touched;

static int child(void *body) {
    switch (*(enum body *)body) {
    case CLOSES:
        if (close(p.server) != 0 || close(p.client) != 0) {
            _exit(1);
        }
        _exit(3);
    case TALKS:
        put(p.client, "from the child");
        take(p.server, 3);
        put(p.server, "own");
        touched = 1;
        _exit(4);
    case EXECS:
        execl("/bin/sh", "sh", "-c", "exit 5", NULL);
        _exit(1);
    case RETURNS:
        touched = 1;
        return 6;
    default:
        exit(7);
    }
}

static pid_t by_number(int flags, enum body body) {
    pid_t pid = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (pid == 0) {
        _exit(child(&body));
    }
    return pid;
}

static pid_t by_row(int flags, enum body body) {
    uint64_t row[8] = {(uint64_t)flags & ~0xffULL, 0, 0, 0, (uint64_t)flags & 0xff};
    pid_t pid = (pid_t)syscall(SYS_clone3, row, sizeof row);
    if (pid == 0) {
        _exit(child(&body));
    }
    return pid;
}

static void cloned(const char *how, int kind, int flags, enum body body) {
    static char stack[256 << 10] __attribute__((aligned(64)));
    int status;
    pid_t pid;
    put(p.client, "abc");
    sleep_ms(20);
    touched = 0;
    fflush(stdout);
    if (kind == 0) {
        pid = clone(child, stack + sizeof stack, flags, &body);
    } else if (kind == 1) {
        pid = __clone(child, stack + sizeof stack, flags, &body, NULL, NULL, NULL);
    } else if (kind == 2) {
        pid = by_number(flags, body);
    } else {
        pid = by_row(flags, body);
    }
    CHECK(pid > 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    printf("%s, the child %s: %x, memory %d\n", how, BODY[body], status, touched);
    if (body == TALKS) {
        take(p.server, 14);
        take(p.client, 3);
    } else {
        take(p.server, 3);
    }
    put(p.server, "back");
    take(p.client, 4);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    p = warm_pair();
    for (int body = 0; body < BODIES; body++) {
        cloned("clone", body % 2, SIGCHLD, (enum body)body);
    }
    warm(p);
    for (int body = 0; body < BODIES; body++) {
        if (body == TALKS || body == RETURNS || body == ENDS) {
            /* Whether the parent's memory changes is not told. */
            continue;
        }
        cloned("as vfork", 0, CLONE_VM | CLONE_VFORK | SIGCHLD, (enum body)body);
    }
    cloned("by number", 2, SIGCHLD, TALKS);
    cloned("by a row", 3, SIGCHLD, TALKS);
    warm(p);
    /* From here on two processes change the same memory. */
    cloned("in the same memory", 0, CLONE_VM | SIGCHLD, RETURNS);
    cloned("in the same memory", 1, CLONE_VM | SIGCHLD, TALKS);
    cloned("with the same descriptors", 0, CLONE_VM | CLONE_FILES | SIGCHLD, TALKS);
    cloned("with the same descriptors", 0, CLONE_FILES | SIGCHLD, TALKS);
    struct pair two = make_pair();
    warm(two);
    end_pair(two);
    errno = 0;
    printf("nothing to do: %d %s\n", clone(NULL, &two, SIGCHLD, NULL), strerror(errno));
    end_pair(p);
    return 0;
}
