/* How many threads the process has beside the program's own: none before there is a connection, and
 * not more than one with connections that use both ends in many ways. */
#include "pair.h"
#include <dirent.h>

static int threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;
    CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;)
        count += task->d_name[0] != '.';
    closedir(tasks);
    return count;
}

static void look(const char *when)
{
    int more = threads() - 1;
    printf("%s: %s\n", when, more <= 1 ? "at most one thread more" : "more threads");
}

int main(void)
{
    struct pair pairs[8];
    int idle = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(idle >= 0);
    printf("before: %d\n", threads());
    pairs[0] = warm_pair();
    look("one connection");
    for (int i = 1; i < 8; i++) {
        pairs[i] = make_pair();
        put(pairs[i].client, "there");
        take(pairs[i].server, 5);
    }
    warm(pairs[7]);
    look("eight connections");
    for (int i = 0; i < 8; i++)
        end_pair(pairs[i]);
    for (int i = 0; i < 20; i++) {
        struct pair p = make_pair();
        put(p.client, "there");
        take(p.server, 5);
        put(p.server, "back");
        take(p.client, 4);
        end_pair(p);
    }
    look("after many");
    close(idle);
    return 0;
}
