/* proof: upgraded.
 *
 * Threads that have waited for a connection leave no descriptors behind when they end.
 */
#include "ends.h"
#include <dirent.h>

static int descriptors(void)
{
    int count = 0;
    DIR *all = opendir("/proc/self/fd");
    NEED(all);
    while (readdir(all))
        count++;
    closedir(all);
    return count;
}

static void *waits(void *argument)
{
    char c;
    get(*(int *)argument, &c, 1);
    return NULL;
}

/* What the other end sends late finds the thread asleep. */
static void threads(int fd, int count)
{
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        NEED(pthread_create(&thread, NULL, waits, &fd) == 0);
        NEED(pthread_join(thread, NULL) == 0);
        put(fd, "a", 1);
    }
}

static void server(int fd)
{
    threads(fd, 10);
    int before = descriptors();
    threads(fd, 40);
    int more = descriptors() - before;
    if (more < 20)
        SAY("no descriptors are left behind");
    else
        SAY("%d descriptors are left behind", more);
    meet(fd);
}

static void client(int fd)
{
    for (int i = 0; i < 50; i++) {
        char c;
        pause_ms(5);
        put(fd, "q", 1);
        get(fd, &c, 1);
    }
    meet(fd);
}
