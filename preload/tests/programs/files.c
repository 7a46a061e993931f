/* sendfile(): offsets, ends, pieces. splice() both ways. */
#include "ends.h"

#define TOTAL (3 << 20)

static int make_file(void)
{
    char name[] = "/tmp/wsd-files-XXXXXX";
    int file = mkstemp(name);
    NEED(file >= 0 && unlink(name) == 0);
    unsigned char *p = malloc(TOTAL);
    fill(p, TOTAL, 0);
    put(file, p, TOTAL);
    free(p);
    return file;
}

static void client(int fd)
{
    int file = make_file();
    off_t at = 0;
    size_t done = 0;
    while (done < TOTAL) {
        ssize_t n = sendfile(fd, file, &at, TOTAL - done);
        NEED(n > 0);
        done += (size_t)n;
    }
    SAY("offset: %lld", (long long)at);
    SAY("position: %lld", (long long)lseek(file, 0, SEEK_CUR));
    SAY_CALL("at the end", sendfile(fd, file, &at, 1));
    SAY_CALL("beyond the end, by position", sendfile(fd, file, NULL, 1));
    NEED(lseek(file, 1000, SEEK_SET) == 1000);
    SAY_CALL("by position", sendfile(fd, file, NULL, 500));
    SAY("position: %lld", (long long)lseek(file, 0, SEEK_CUR));
    at = TOTAL - 10;
    SAY_CALL("over the end", sendfile(fd, file, &at, 500));
    SAY("offset: %lld", (long long)at);
    SAY_CALL("nothing", sendfile(fd, file, &at, 0));
    at = -1;
    SAY_CALL("before the beginning", sendfile(fd, file, &at, 5));
    SAY_CALL("no file", sendfile(fd, -1, NULL, 5));
    meet(fd);

    /* Non-blocking: a part, and the offset says which. */
    int on = 1;
    NEED(ioctl(fd, FIONBIO, &on) == 0);
    off_t total = 0;
    int waits = 0;
    while (total < 20 * (off_t)TOTAL) {
        off_t from = total % TOTAL, begin = from;
        ssize_t n = sendfile(fd, file, &from, (size_t)(TOTAL - from));
        if (n < 0) {
            NEED(errno == EAGAIN && from == begin);
            waits++;
            pause_ms(1);
            continue;
        }
        NEED(n > 0 && from == begin + n);
        total += n;
    }
    on = 0;
    NEED(ioctl(fd, FIONBIO, &on) == 0);
    SAY("sent %lld", (long long)total);
    meet(fd);

    /* By a pipe. */
    int pipes[2];
    NEED(pipe(pipes) == 0);
    loff_t place = 0;
    done = 0;
    while (done < 200000) {
        size_t want = 200000 - done < 30000 ? 200000 - done : 30000;
        ssize_t n = splice(file, &place, pipes[1], NULL, want, 0);
        NEED(n > 0);
        while (n > 0) {
            ssize_t k = splice(pipes[0], NULL, fd, NULL, (size_t)n, 0);
            NEED(k > 0);
            n -= k;
            done += (size_t)k;
        }
    }
    SAY("spliced %zu", done);
    meet(fd);
    done = 0;
    unsigned char *p = malloc(1 << 16);
    while (done < 200000) {
        ssize_t n = splice(fd, NULL, pipes[1], NULL, 30000, 0);
        NEED(n > 0);
        get(pipes[0], p, (size_t)n);
        NEED(check(p, (size_t)n, done));
        done += (size_t)n;
    }
    SAY("spliced back %zu", done);
    meet(fd);
}

static void expect(int fd, uint64_t from, uint64_t count)
{
    static unsigned char p[1 << 16];
    while (count > 0) {
        size_t n = count < sizeof p ? count : sizeof p;
        get(fd, p, n);
        NEED(check(p, n, from));
        from += n;
        count -= n;
    }
}

static void server(int fd)
{
    expect(fd, 0, TOTAL);
    expect(fd, 1000, 500);
    expect(fd, TOTAL - 10, 10);
    meet(fd);
    for (int i = 0; i < 20; i++)
        expect(fd, 0, TOTAL);
    meet(fd);
    expect(fd, 0, 200000);
    meet(fd);
    unsigned char *p = malloc(200000);
    fill(p, 200000, 0);
    put(fd, p, 200000);
    meet(fd);
    SAY("all was right");
}
