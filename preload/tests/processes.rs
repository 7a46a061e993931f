//! What programs that are started by others have of the library, and what they are denied.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod library;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn with_library(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .env_remove("WSD_RULES")
        .env_remove("WSD_RULE")
        .env("LD_PRELOAD", library::path());
    command
}

fn text(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn compiled(name: &str, source: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (code, made) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&code, source).unwrap();
    let out = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-pthread", "-o"])
        .arg(&made)
        .arg(&code)
        .output()
        .expect("cc");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    made
}

#[test]
fn a_program_started_without_an_environment_has_the_library_and_its_settings() {
    let mut command = with_library("env");
    command
        .args(["-i", "A=b", "env"])
        .env("WSD_EAGER", "1")
        .env("WSD_LOG", "/dev/null");
    let output = text(&command.output().unwrap());
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    let library = format!("LD_PRELOAD={}", library::path().display());
    assert_eq!(lines, ["A=b", &library, "WSD_EAGER=1", "WSD_LOG=/dev/null"]);
}

#[test]
fn what_the_program_sets_itself_stays() {
    let mut command = with_library("env");
    command
        .args(["-i", "LD_PRELOAD=libm.so.6", "WSD_EAGER=0", "env"])
        .env("WSD_EAGER", "1");
    let output = text(&command.output().unwrap());
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    let library = format!("LD_PRELOAD={}:libm.so.6", library::path().display());
    assert_eq!(lines, [&library, "WSD_EAGER=0"]);
}

#[test]
fn a_library_that_is_not_in_ld_preload_is_not_put_there() {
    let source = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        #include <unistd.h>
        int main(int count, char **arguments)
        {
            char *next[] = {"env", NULL}, *variables[] = {"A=b", NULL};
            if (count < 2 || !dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL)) {
                puts(dlerror());
                return 1;
            }
            int (*execve_)(const char *, char *const *, char *const *);
            *(void **)&execve_ = dlsym(RTLD_DEFAULT, "execve");
            return execve_("/usr/bin/env", next, variables);
        }"#;
    let mut command = Command::new(compiled("opened", source));
    command.arg(library::path()).env_remove("LD_PRELOAD");
    assert_eq!(text(&command.output().unwrap()), "A=b\n");
}

#[test]
fn rings_are_denied_unless_a_rule_grants_them() {
    let source = r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(void)
        {
            char parameters[120] = {0};
            errno = 0;
            long ring = syscall(SYS_io_uring_setup, 4, parameters);
            printf("%d %d\n", ring >= 0, errno);
            return 0;
        }"#;
    let program = compiled("ring", source);
    let plain = text(
        &Command::new(&program)
            .env_remove("LD_PRELOAD")
            .output()
            .unwrap(),
    );
    let denied = text(&with_library(&program).output().unwrap());
    assert_eq!(denied, format!("0 {}\n", libc::ENOSYS));
    let granted = |rule: &str| {
        text(
            &with_library(&program)
                .env("WSD_RULE", rule)
                .output()
                .unwrap(),
        )
    };
    assert_eq!(granted("io_uring allow program ring"), plain);
    assert_eq!(granted("io_uring allow program other"), denied);
    assert_eq!(granted("io_uring allow; this is no rule"), denied);
    let off = with_library(&program).env("WSD_SWITCH", "off").output();
    assert_eq!(text(&off.unwrap()), plain);
}

#[test]
fn liburing_is_denied_rings_as_by_a_kernel_without_them() {
    let source = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        int main(void)
        {
            char ring[512] = {0};
            int (*init)(unsigned, void *, unsigned);
            *(void **)&init = dlsym(RTLD_DEFAULT, "io_uring_queue_init");
            printf("%d\n", init ? init(4, ring, 0) : 1);
            return 0;
        }"#;
    let program = compiled("liburing", source);
    let denied = format!("{}\n", -libc::ENOSYS);
    assert_eq!(text(&with_library(&program).output().unwrap()), denied);
    // Granted, the library that is not there answers the same.
    let mut granted = with_library(&program);
    granted.env("WSD_RULE", "io_uring allow");
    assert_eq!(text(&granted.output().unwrap()), denied);
}

/// As nginx does with its workers.
#[test]
fn a_program_that_gives_up_its_environment_keeps_the_librarys_settings() {
    let source = format!(
        "#include \"{}/tests/programs/pair.h\"\n{}",
        env!("CARGO_MANIFEST_DIR"),
        r#"
        #include <stdlib.h>
        int main(void)
        {
            clearenv();
            end_pair(warm_pair());
            return 0;
        }"#
    );
    let program = compiled("clears", &source);
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clears.log");
    let said = |settings: &[(&str, &str)]| {
        drop(fs::remove_file(&log));
        let mut command = with_library(&program);
        command.env("WSD_LOG", &log).envs(settings.iter().copied());
        assert_eq!(text(&command.output().unwrap()), "");
        fs::read_to_string(&log).unwrap_or_default()
    };
    let eager = said(&[("WSD_EAGER", "1")]);
    assert_eq!(eager.matches("upgrades=1").count(), 2, "{eager}");
    assert_eq!(said(&[("WSD_EAGER", "1"), ("WSD_SWITCH", "off")]), "");
    let ruled = said(&[("WSD_RULE", "use tcp to 127.0.0.1")]);
    assert_eq!(ruled.matches("reason=rule").count(), 2, "{ruled}");
}

/// The memory has room for many connections, most of which never comes to exist.
#[test]
fn what_is_told_of_connections_takes_no_more_memory_after_a_fork() {
    let source = format!(
        "#include \"{}/tests/programs/pair.h\"\n{}",
        env!("CARGO_MANIFEST_DIR"),
        r#"
        #include <dirent.h>
        #include <stdlib.h>
        #include <sys/stat.h>
        #include <sys/wait.h>
        static void say_blocks(void)
        {
            DIR *all = opendir("/proc/self/fd");
            struct dirent *one;
            char name[300], target[100];
            while ((one = readdir(all))) {
                struct stat about;
                snprintf(name, sizeof name, "/proc/self/fd/%s", one->d_name);
                ssize_t length = readlink(name, target, sizeof target - 1);
                target[length < 0 ? 0 : length] = 0;
                if (strstr(target, "wsdirect-observe") && stat(name, &about) == 0)
                    printf("%ld\n", (long)about.st_blocks);
            }
            closedir(all);
            fflush(stdout);
        }
        int main(void)
        {
            struct pair first = make_pair();
            pid_t pid = fork();
            if (pid == 0) {
                struct pair second = make_pair();
                say_blocks();
                end_pair(second);
                return 0;
            }
            CHECK(waitpid(pid, NULL, 0) == pid);
            say_blocks();
            end_pair(first);
            return 0;
        }"#
    );
    let output = text(&with_library(compiled("blocks", &source)).output().unwrap());
    let blocks: Vec<u64> = output.lines().map(|line| line.parse().unwrap()).collect();
    // A head and a page or two of slots, in each process; all of it would be more than 30,000.
    assert_eq!(blocks.len(), 2, "{output}");
    assert!(blocks.iter().all(|count| *count < 500), "{output}");
}

#[test]
fn handlers_of_fork_run_once_and_in_their_order() {
    let source = r#"
        #define _GNU_SOURCE
        #include <pthread.h>
        #include <stdio.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static void before(void) { write(1, "before ", 7); }
        static void parent(void) { write(1, "parent ", 7); }
        static void child(void) { write(1, "child ", 6); }
        int main(void)
        {
            pthread_atfork(before, parent, child);
            for (int i = 0; i < 2; i++) {
                pid_t pid = i ? vfork() : fork();
                if (pid == 0) {
                    usleep(200000);
                    _exit(3);
                }
                int status;
                if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 3)
                    return 1;
            }
            return 0;
        }"#;
    // A vfork that is a fork runs them, too.
    let output = text(&with_library(compiled("handlers", source)).output().unwrap());
    assert_eq!(output.matches("before").count(), 2, "{output}");
    assert_eq!(output.matches("child").count(), 2, "{output}");
    assert_eq!(output.matches("parent").count(), 2, "{output}");
}
