#include "sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Sanitizers open, trace and map what the engine may not: such a build is for tests, and shuts no door.
#ifdef AMBIENT_SANITIZED
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

enum { NOBODY = 65534 };

static void must(int ok, const char *tried) {
  if (ok) return;
  fprintf(stderr, "ambient-engine: cannot %s: %s\n", tried, strerror(errno));
  exit(1);
}

static void enter_empty_root(const char *run_dir) {
  char root[4096];
  must(snprintf(root, sizeof root, "%s/engine.root.XXXXXX", run_dir) < (int)sizeof root, "name an empty directory");
  must(mkdtemp(root) != NULL, "make an empty directory in --run-dir");
  must(chdir(root) == 0, "enter the empty directory");
  must(rmdir(root) == 0, "remove the name of the empty directory"); // now nothing can ever be made in it
  must(chroot(".") == 0, "chroot to the empty directory");
}

static void drop_capabilities(void) {
  for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
    must(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0, "drop a capability from the bounding set");
  must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0, "drop ambient capabilities");
}

void sandbox_enter(const char *run_dir) {
  struct rlimit none = {0, 0};
  if (SANITIZED) return;
  must(setrlimit(RLIMIT_CORE, &none) == 0, "forbid core dumps (they would hold keys)");
  enter_empty_root(run_dir);
  drop_capabilities();
  must(setgroups(0, NULL) == 0, "drop supplementary groups");
  must(setresgid(NOBODY, NOBODY, NOBODY) == 0, "become group nobody");
  must(setresuid(NOBODY, NOBODY, NOBODY) == 0, "become nobody");
  must(setuid(0) != 0, "be sure that root is gone");
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "forbid new privileges");
  must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0, "forbid being traced");
}

// What carrying bytes takes, what libc and OpenSSL do to get memory, time and randomness, and how to end.
static const int allowed[] = {
    SYS_read,
    SYS_write,
    SYS_close,
    SYS_recvfrom,
    SYS_sendto,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_shutdown,
    SYS_accept4,
    SYS_connect,
    SYS_bind,
    SYS_getsockname,
    SYS_getpeername,
    SYS_setsockopt,
    SYS_getsockopt,
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_ctl,
    SYS_ioctl,
    SYS_fcntl,
    SYS_brk,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_futex,
    SYS_getrandom,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_rt_sigreturn,
    SYS_rt_sigprocmask,
    SYS_rt_sigtimedwait,
    SYS_restart_syscall,
    SYS_sched_yield,
    SYS_gettid,
    SYS_getpid,
    SYS_tgkill,
    SYS_exit,
    SYS_exit_group,
    SYS_prlimit64,
    SYS_rseq,
    SYS_set_robust_list,
    SYS_sigaltstack,
};

struct program {
  struct sock_filter code[256];
  unsigned short len;
};

static void emit(struct program *p, unsigned short code, unsigned char yes, unsigned char no, unsigned k) {
  p->code[p->len++] = (struct sock_filter){code, yes, no, k};
}

static void load(struct program *p, size_t offset) { emit(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, (unsigned)offset); }

static void on_equal(struct program *p, unsigned value, unsigned action) {
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value);
  emit(p, BPF_RET | BPF_K, 0, 0, action);
}

enum { ARGUMENT = sizeof(__u64) }; // little-endian: the low half comes first

// bpf(): rows of the clients map, nothing else.
static void allow_map_rows(struct program *p) {
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 6, SYS_bpf);
  load(p, offsetof(struct seccomp_data, args));
  on_equal(p, BPF_MAP_UPDATE_ELEM, SECCOMP_RET_ALLOW);
  on_equal(p, BPF_MAP_DELETE_ELEM, SECCOMP_RET_ALLOW);
  emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM);
}

// Memory, but none that can be executed.
static void allow_data_pages(struct program *p, unsigned number) {
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 4, number);
  load(p, offsetof(struct seccomp_data, args) + 2 * ARGUMENT);
  emit(p, BPF_JMP | BPF_JSET | BPF_K, 0, 1, PROT_EXEC);
  emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM);
  emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
}

#if defined(__x86_64__)
enum { ARCHITECTURE = AUDIT_ARCH_X86_64 };
#elif defined(__aarch64__)
enum { ARCHITECTURE = AUDIT_ARCH_AARCH64 };
#else
#error "say here what AUDIT_ARCH_* this is, and check that it is little-endian"
#endif

void sandbox_seal(void) {
  static struct program p;
  load(&p, offsetof(struct seccomp_data, arch));
  emit(&p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, (unsigned)ARCHITECTURE);
  emit(&p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
  load(&p, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) on_equal(&p, (unsigned)allowed[i], SECCOMP_RET_ALLOW);
  allow_data_pages(&p, SYS_mmap);
  allow_data_pages(&p, SYS_mprotect);
  allow_map_rows(&p);
  emit(&p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog filter = {.len = p.len, .filter = p.code};
  if (SANITIZED) return;
  long failed = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
  must(failed == 0, "install the system call filter in every thread");
}
