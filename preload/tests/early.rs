//! Calls that come before the library is ready, while it looks up libc's functions, and after its
//! end: of other libraries' constructors and destructors, and of an allocator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod library;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Talks over sockets in its constructor, in several threads at once, and leaves a connection that
/// its destructor may come too late for: what is on the SAN ends with the library. It is told so, and
/// a connection that it makes then is as good as any.
const CONSTRUCTOR: &str = r#"
    #include "pair.h"
    #define THREADS 6
    struct pair early;
    static pthread_barrier_t barrier;
    static void talk(struct pair p, int turns) {
        static const char block[2048];
        for (int i = 0; i < turns; i++) {
            CHECK(write(p.client, block, sizeof block) == sizeof block);
            take(p.server, sizeof block);
            CHECK(write(p.server, block, sizeof block) == sizeof block);
            take(p.client, sizeof block);
            sleep_ms(3);
        }
    }
    static void *first(void *which) {
        char c;
        pthread_barrier_wait(&barrier);
        /* Not all of them begin with the same. */
        switch ((intptr_t)which % 3) {
        case 0:
            CHECK(read(-1, &c, 1) == -1 && errno == EBADF);
            break;
        case 1:
            CHECK(close(epoll_create1(0)) == 0);
            break;
        default:
            CHECK(poll(NULL, 0, 0) == 0);
        }
        struct pair p = make_pair();
        talk(p, 20);
        end_pair(p);
        return NULL;
    }
    __attribute__((constructor)) static void begin(void) {
        pthread_t thread[THREADS];
        CHECK(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
        for (intptr_t i = 0; i < THREADS; i++)
            CHECK(pthread_create(&thread[i], NULL, first, (void *)i) == 0);
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_join(thread[i], NULL) == 0);
        early = make_pair();
        talk(early, 10);
    }
    __attribute__((destructor)) static void end(void) {
        CHECK(write(early.client, "x", 1) == 1 || errno == ECONNRESET);
        close(early.client);
        close(early.server);
        struct pair late = make_pair();
        talk(late, 3);
        end_pair(late);
        CHECK(write(1, "ended\n", 6) == 6);
    }"#;

/// Opens, reads, writes and closes in each call.
const ALLOCATOR: &str = r#"
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <stddef.h>
    #include <unistd.h>
    extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
    extern void *__libc_realloc(void *, size_t);
    extern void __libc_free(void *);
    static __thread int inside __attribute__((tls_model("initial-exec")));
    static void look(void) {
        if (inside)
            return;
        inside = 1;
        int before = errno;
        char c;
        int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
        if (read(fd, &c, 1) != 1 || write(fd, &c, 1) != 1 || close(fd) != 0)
            _exit(77);
        errno = before;
        inside = 0;
    }
    void *malloc(size_t n) { look(); return __libc_malloc(n); }
    void *calloc(size_t n, size_t m) { look(); return __libc_calloc(n, m); }
    void *realloc(void *p, size_t n) { look(); return __libc_realloc(p, n); }
    void free(void *p) { look(); __libc_free(p); }"#;

const PROGRAM: &str = r#"
    #include "pair.h"
    #include <dlfcn.h>
    int main(void) {
        struct pair *early = dlsym(RTLD_DEFAULT, "early");
        struct pair p = warm_pair();
        int set = epoll_create1(0);
        add(set, p.server, EPOLLIN, 3);
        put(p.client, "x");
        told("told", set, 10000);
        take(p.server, 1);
        end_pair(p);
        if (early)
            warm(*early);
        puts("talked");
        return 0;
    }"#;

fn compiled(name: &str, source: &str, options: &[&str]) -> PathBuf {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (code, made) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&code, source).unwrap();
    let out = Command::new("cc")
        .args([
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Wno-unused-function",
            "-pthread",
            "-o",
        ])
        .arg(&made)
        .arg(&code)
        .arg("-I")
        .arg(programs)
        .args(options)
        .output()
        .expect("cc");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    made
}

/// What it says alone, and with the library before and after these others.
fn is_the_same(name: &str, program: &Path, others: Option<&Path>, upgrades: bool) {
    let ours = library::path();
    let mut ways = vec![vec![], vec![ours.as_path()]];
    if let Some(other) = others {
        ways = vec![vec![other], vec![&ours, other], vec![other, &ours]];
    }
    let mut plain = None;
    for way in ways {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("early-{name}.log"));
        drop(fs::remove_file(&log));
        let names: Vec<_> = way.iter().map(|path| path.to_str().unwrap()).collect();
        let output = Command::new(program)
            .env("LD_PRELOAD", names.join(":"))
            .env("WSD_EAGER", "1")
            .env("WSD_LOG", &log)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{names:?}: {output:?}"
        );
        let said = String::from_utf8(output.stdout).unwrap();
        let plain = plain.get_or_insert_with(|| said.clone());
        assert_eq!(*plain, said, "{names:?}");
        let lines = fs::read_to_string(&log).unwrap_or_default();
        assert!(!lines.contains("panic"), "{lines}");
        if upgrades && way.contains(&ours.as_path()) {
            assert!(lines.contains("upgrades=1"), "{names:?}: {lines}");
        }
    }
}

#[test]
fn a_constructor_may_use_sockets_before_the_library_was_made_ready() {
    let other = compiled("libearly.so", CONSTRUCTOR, &["-shared", "-fPIC"]);
    let folder = other.parent().unwrap().to_str().unwrap();
    // Its constructor comes before ours, its destructor after ours.
    let rpath = format!("-Wl,--no-as-needed,-rpath,{folder}");
    let program = compiled("linked", PROGRAM, &["-L", folder, &rpath, "-learly"]);
    is_the_same("linked", &program, None, true);
    let program = compiled("unlinked", PROGRAM, &[]);
    is_the_same("unlinked", &program, Some(&other), true);
}

#[test]
fn an_allocator_may_open_read_and_close() {
    let other = compiled("liballocator.so", ALLOCATOR, &["-shared", "-fPIC"]);
    let program = compiled("allocating", PROGRAM, &[]);
    is_the_same("allocating", &program, Some(&other), true);
}
